"""Overload: a master that gets half of the processor time that its fleet needs, so it carries half of what arrives.

Its processes are held to a number of cores by SIGSTOP and SIGCONT, as a cgroup's quota would hold them; that needs no
right and no kernel feature. Nothing else changes: the workers go on at their rate, and readers ask as before.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench.client import fetch, percentile
from tests.bench.exposition import Scrape
from tests.bench.fleet import PREFIX, Fleet, running_fleet
from tests.bench.processes import BenchError, Child

_SHARE = 0.5
_LEAST_CORES = 0.05
_POLL_SECONDS = 0.005
_LONGEST_STOP_SECONDS = 0.5
_ASK_SECONDS = 0.25

_ACCEPTED = "fleetpulse_heartbeats_received_total"
_SUPERSEDED = "fleetpulse_heartbeats_superseded_total"


class CpuCap:
    """Holds processes to a number of cores, on average over any tenth of a second. In a thread of its own."""

    def __init__(self, pids: Sequence[int], cores: float) -> None:
        self._pids, self._cores = pids, cores
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cpu cap", daemon=True)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Applies it during the block."""
        self._thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            self._thread.join()

    def _run(self) -> None:
        used, at = _cpu_seconds(self._pids), time.monotonic()
        while not self._stopped.wait(_POLL_SECONDS):
            now_used, now = _cpu_seconds(self._pids), time.monotonic()
            excess = (now_used - used) - (now - at) * self._cores
            if excess <= 0.0:
                # Time that it did not use is not saved up.
                used, at = now_used, now
            elif excess > self._cores * _POLL_SECONDS:
                self._hold(min(excess / self._cores, _LONGEST_STOP_SECONDS))

    def _hold(self, seconds: float) -> None:
        try:
            for pid in self._pids:
                os.kill(pid, signal.SIGSTOP)
            self._stopped.wait(seconds)
        finally:
            for pid in self._pids:
                os.kill(pid, signal.SIGCONT)


def measure_overload(
    folder: Path, workers: int, seconds: float, flags: Sequence[str] = (), calm_seconds: float = 15.0
) -> dict[str, float | None]:
    """``workers`` at a master with half of what they take, for longer than the inactivity timeout."""
    with running_fleet(folder, workers, flags) as fleet:
        before = fleet.master.process.usage().cpu_seconds
        _ask(fleet, calm_seconds)
        cores = max(_SHARE * (fleet.master.process.usage().cpu_seconds - before) / calm_seconds, _LEAST_CORES)
        inactive_before = fleet.inactive_so_far()
        first, started = _scrape(fleet), time.monotonic()
        with CpuCap(_children(fleet.master.process), cores).applied():
            answers = _ask(fleet, seconds)
        elapsed = time.monotonic() - started
        last = _scrape(fleet)
        not_active = sum(record["is_active"] is not True for record in fleet.records().values())
        processed, superseded = (last.total(name) - first.total(name) for name in (_ACCEPTED, _SUPERSEDED))
        return {
            "overload_cores": cores,
            "overload_heartbeats_per_second": processed / elapsed,
            "overload_superseded_per_second": superseded / elapsed,
            "overload_inactive": float(max(fleet.inactive_so_far() - inactive_before, not_active)),
            "overload_answer_p50_seconds": percentile(answers, 50),
            "overload_answer_p99_seconds": percentile(answers, 99),
        }


def _ask(fleet: Fleet, seconds: float) -> list[float]:
    """The times of answers, of one worker and of /health in turn."""
    deadline = time.monotonic() + seconds
    worker = f"/telemetry/{next(name for name in fleet.records() if name.startswith(PREFIX))}"
    answers = []
    while time.monotonic() < deadline:
        for path in (worker, "/health"):
            answer = fetch(fleet.master.http_port, path)
            if path == worker and answer.status != 200:
                raise BenchError(f"GET {path}: {answer.status} {answer.body[:200]!r}")
            answers.append(answer.seconds)
        time.sleep(_ASK_SECONDS)
    return answers


def _scrape(fleet: Fleet) -> Scrape:
    return Scrape(fetch(fleet.master.http_port, "/metrics").body.decode())


def _children(process: Child) -> tuple[int, ...]:
    """The processes that serve: all but gunicorn's arbiter, which has next to nothing to do."""
    return process.pids()[1:]


def _cpu_seconds(pids: Sequence[int]) -> float:
    # The first field is the time that a thread has run; utime and stime of stat come in hundredths of a second.
    nanoseconds = 0
    for path in (path for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/schedstat")):
        with contextlib.suppress(OSError):  # the thread has ended
            nanoseconds += int(path.read_text().split()[0])
    return nanoseconds * 1e-9
