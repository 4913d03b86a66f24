"""The processes of the benchmark, with their CPU and memory. Each is stopped at the end of its block."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

ROOT = Path(__file__).resolve().parent.parent.parent
FETCHED = ROOT / ".tools" / "bin"

_STOP_SECONDS = 20.0
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_SETTINGS = {"HTTP_PORT", "GRPC_PORT", "HEARTBEAT_INTERVAL", "INACTIVITY_TIMEOUT", "WEB_CONCURRENCY", "DATABASE_URL"}


Command = Sequence[str | Path]


class BenchError(Exception):
    """The measurement failed or is not valid."""


class Usage(NamedTuple):
    """The resources of a process and its descendants. Shared memory counts once for each of them."""

    cpu_seconds: float
    rss_bytes: int
    peak_rss_bytes: int
    """The sum of their peaks, which is at least the peak of the sum."""


class Child:
    """A started process and its descendants."""

    def __init__(
        self, name: str, command: Command, folder: Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.output_path = folder / f"{name}.out"
        self.log_path = folder / f"{name}.err"
        with self.output_path.open("wb") as output, self.log_path.open("wb") as log:
            # A separate session: Ctrl-C reaches only the benchmark, which then stops everything in order.
            self._process = subprocess.Popen(
                command, cwd=cwd or folder, env=_environment() | dict(env or {}), stdin=subprocess.DEVNULL,
                stdout=output, stderr=log, start_new_session=True,
            )  # fmt: skip

    @property
    def log(self) -> str:
        """Its stderr."""
        return self.log_path.read_text(errors="replace")

    @property
    def output_lines(self) -> list[str]:
        """The complete lines of its stdout."""
        return self.output_path.read_text().split("\n")[:-1]

    @property
    def last_output(self) -> str:
        """The last complete line of its stdout, or an empty string."""
        return (self.output_lines or [""])[-1]

    def pids(self) -> tuple[int, ...]:
        """The process ids of it and its descendants."""
        self.require_running()
        return (self._process.pid, *(p.pid for p in psutil.Process(self._process.pid).children(recursive=True)))

    def usage(self) -> Usage:
        """CPU time since the start, and memory now."""
        pids = self.pids()
        return Usage(
            cpu_seconds=sum(_cpu_seconds(Path(f"/proc/{pid}/stat").read_text()) for pid in pids),
            rss_bytes=sum(_memory_bytes(pid, "VmRSS") for pid in pids),
            peak_rss_bytes=sum(_memory_bytes(pid, "VmHWM") for pid in pids),
        )

    def require_running(self) -> None:
        """Raises ``BenchError`` when it has ended."""
        if self._process.poll() is not None:
            raise BenchError(
                f"{self.name} ended by itself with {self._process.returncode}:\n{self.last_output_lines()}"
            )

    def wait(self, timeout_seconds: float) -> None:
        """Waits until it ends by itself. Raises ``BenchError`` when it fails or takes longer."""
        try:
            status = self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self.name} has not ended after {timeout_seconds:.0f} s") from None
        if status != 0:
            raise BenchError(f"{self.name} ended with {status}:\n{self.last_output_lines()}")

    def stop(self) -> None:
        """Sends SIGTERM, then SIGKILL to it and its descendants after 20 s."""
        if self._process.poll() is not None:
            return
        descendants = psutil.Process(self._process.pid).children(recursive=True)
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"{self.name} did not end within {_STOP_SECONDS:.0f} s of SIGTERM and is killed", file=sys.stderr)
            self._process.kill()
            self._process.wait()
        for left in descendants:
            if left.is_running():
                left.kill()

    def last_output_lines(self) -> str:
        """The end of its output, for error messages."""
        return "\n".join([*self.log.splitlines()[-15:], self.last_output])


@contextmanager
def running(
    name: str, command: Command, folder: Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Iterator[Child]:
    """Runs a process during the block, in ``cwd`` or else ``folder``. Its output goes to files in ``folder``."""
    child = Child(name, command, folder, cwd, env)
    try:
        yield child
    finally:
        child.stop()


def run_json(name: str, command: Command, folder: Path, timeout_seconds: float) -> dict[str, Any]:
    """Runs a program to its end and returns the last line of its stdout, a JSON object."""
    with running(name, command, folder, cwd=ROOT) as child:
        child.wait(timeout_seconds)
        found: dict[str, Any] = json.loads(child.last_output)
        return found


def wait_until(
    is_so: Callable[[], bool], timeout_seconds: float, complaint: str, *needed: Child, poll_seconds: float = 0.05
) -> None:
    """Waits for a condition. Raises ``BenchError`` with the complaint after the timeout, or when a process ends."""
    deadline = time.monotonic() + timeout_seconds
    while not is_so():
        if time.monotonic() > deadline:
            last_output_lines = "".join(f"\n{child.name}:\n{child.last_output_lines()}" for child in needed)
            raise BenchError(f"{complaint} after {timeout_seconds:.0f} s{last_output_lines}")
        for child in needed:
            child.require_running()
        time.sleep(poll_seconds)


def find_tool(name: str) -> Path:
    """A program that ``make tools`` fetches, or one on PATH."""
    found = shutil.which(name, path=os.pathsep.join([str(FETCHED), os.environ.get("PATH", os.defpath)]))
    if found is None:
        raise BenchError(f"{name} is missing: `make tools` fetches it on Debian and Ubuntu")
    return Path(found)


def machine_busy_seconds() -> float:
    """CPU time of all processes, the kernel and the hypervisor since boot."""
    times = psutil.cpu_times()
    # Linux counts guest time as user time already.
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


def _environment() -> dict[str, str]:
    """The environment without settings of FleetPulse."""
    return {k: v for k, v in os.environ.items() if k not in _SETTINGS and not k.startswith("FLEETPULSE_")}


def _cpu_seconds(stat: str) -> float:
    # The name in parentheses may hold spaces; utime and stime are fields 14 and 15 (proc_pid_stat(5)).
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def _memory_bytes(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise BenchError(f"process {pid} has no {field}: it has ended")
