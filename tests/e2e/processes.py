"""Real processes for tests, with their output and their children. They end with the test."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.e2e.waiting import TIMEOUT_SECONDS, eventually

FLEETPULSE = str(Path(sys.executable).parent / "fleetpulse")

_SETTINGS = (
    "HTTP_PORT",
    "GRPC_PORT",
    "JOIN_PORT",
    "HEARTBEAT_INTERVAL",
    "INACTIVITY_TIMEOUT",
    "WEB_CONCURRENCY",
    "DATABASE_URL",
    "COLUMNS",
    "LINES",
    "GUNICORN_CMD_ARGS",
)
_LOG_CHARACTERS = 6_000


class CompletedCommand(NamedTuple):
    """A process that has ended."""

    code: int
    out: str
    err: str

    def error_line(self) -> str:
        """The one line with the error of the command."""
        lines = [line for line in self.err.splitlines() if line.startswith("Error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err, self.err
        return lines[0].removeprefix("Error: ")


class RunningProcess:
    """A running process. It leads its own process group, as a command at a terminal does."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, env: dict[str, str]) -> None:
        self.name, self.command = name, tuple(command)
        self._out, self._err = folder / f"{name}.stdout", folder / f"{name}.stderr"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._popen = subprocess.Popen(
                command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )
        self.pid = self._popen.pid
        self._handle = psutil.Process(self.pid)
        self._family: set[psutil.Process] = {self._handle}

    @property
    def out(self) -> str:
        """Its stdout so far."""
        return self._out.read_text(errors="replace")

    @property
    def err(self) -> str:
        """Its stderr so far."""
        return self._err.read_text(errors="replace")

    @property
    def is_running(self) -> bool:
        return self._popen.poll() is None

    def children(self) -> list[psutil.Process]:
        """Its running descendants."""
        with contextlib.suppress(psutil.NoSuchProcess):
            children = self._handle.children(recursive=True)
            self._family.update(children)
            return children
        return []

    def peer_ports(self) -> set[int]:
        """The remote ports of its TCP connections."""
        connections = self._handle.net_connections("tcp")
        return {connection.raddr.port for connection in connections if connection.status == psutil.CONN_ESTABLISHED}

    def left(self) -> list[psutil.Process]:
        """Its processes and descendants that still run."""
        return [process for process in self._family if _runs(process)]

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the process alone."""
        self.children()
        self._popen.send_signal(number)

    def press_ctrl_c(self) -> None:
        """Sends SIGINT to the process group, as a terminal does."""
        self.children()
        os.killpg(self.pid, signal.SIGINT)

    def wait(self, timeout: float = TIMEOUT_SECONDS) -> int:
        """Waits for the exit code. Raises ``AssertionError`` if it does not end in time."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {timeout:g} s") from None

    def kill_all(self) -> None:
        """Kills the process and all its descendants."""
        self.children()
        for process in self.left():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._popen.wait()
        wait_until_gone(list(self._family), 10.0)


class Processes:
    """The processes of one test or module, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[RunningProcess] = []

    def start(self, name: str, *command: str, **env: str) -> RunningProcess:
        """Starts a command in the folder. ``env`` extends an environment without FleetPulse's settings."""
        count = sum(process.name.partition("-")[0] == name for process in self._started)
        process = RunningProcess(f"{name}-{count}" if count else name, command, self.folder, self.environment(**env))
        self._started.append(process)
        return process

    def run(self, *command: str, **env: str) -> CompletedCommand:
        """Runs a command and waits at most 20 s for its end."""
        process = self.start("command", *command, **env)
        return CompletedCommand(process.wait(20.0), process.out, process.err)

    def worker(self, target: str, *flags: str, name: str = "worker", **env: str) -> RunningProcess:
        """``python -m fleetpulse.worker``, with its data beside its output."""
        return self.start(name, sys.executable, "-m", "fleetpulse.worker", "--master", target, *flags, **env)

    def simulate(self, target: str, workers: int, *flags: str) -> RunningProcess:
        """``fleetpulse simulate`` without a ramp-up."""
        sizes = ("--workers", str(workers), "--ramp", "0", "--json")
        return self.start("simulate", FLEETPULSE, "simulate", "--master", target, *sizes, *flags)

    def environment(self, **env: str) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("FLEETPULSE_") and name not in _SETTINGS and not name.lower().endswith("_proxy")
        }
        return inherited | {"FLEETPULSE_DATA_DIR": str(self.folder / "data")} | env

    def close(self) -> None:
        """Kills all processes."""
        for process in reversed(self._started):
            process.kill_all()

    def logs(self) -> Iterator[tuple[str, str]]:
        """The output of each process, for a failed test."""
        for process in self._started:
            for stream, text in (("stdout", process.out), ("stderr", process.err)):
                if text:
                    yield f"{process.name} {stream}", text[-_LOG_CHARACTERS:]


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(processes: Sequence[psutil.Process], timeout: float) -> None:
    """Waits until none of the processes runs."""
    eventually(lambda: not [process for process in processes if _runs(process)], timeout)
