"""Restarts of a master under a simulated fleet, and what came of each."""

import json
import re
import time
from typing import Any, NamedTuple

from tests.e2e.jobs import Jobs
from tests.e2e.masters import Master
from tests.e2e.processes import RunningProcess
from tests.e2e.waiting import eventually

_POLL_SECONDS = 0.2


class Comeback(NamedTuple):
    """How a fleet came back after one restart of its master."""

    workers: int
    back: int
    seconds: float
    """From the start of the new process until all were back, or until the wait ended."""

    wasted_streams: int
    """Streams that a worker or the master gave up before the worker was registered."""

    asked_to_come_later: int
    """Refusals with a delay. They cost next to nothing."""

    falsely_inactive: int
    """All workers are alive, so every inactive one is a false one."""

    lost_attempts: int
    is_held: bool
    """The master still holds back what is lost, which an alert tells after a minute."""

    def problems(self, allowed_waste_ratio: float = 0.0) -> list[str]:
        """What must not be, in words. Of the streams, this share of the fleet may be wasted."""
        found = [
            (self.back < self.workers, f"{self.back} of {self.workers} workers were back after {self.seconds:.0f} s"),
            (self.wasted_streams > self.workers * allowed_waste_ratio, f"{self.wasted_streams} streams were wasted"),
            (self.falsely_inactive > 0, f"{self.falsely_inactive} workers were falsely inactive"),
            (self.lost_attempts > 0, f"{self.lost_attempts} attempts were lost"),
            (self.is_held, "attempts of lost workers are still held"),
        ]
        return [words for is_so, words in found if is_so]


class RestartedFleet:
    """A simulated fleet and its master. Asks the fleet, not the master, who is connected: that one has enough to do."""

    def __init__(self, master: Master, fleet: RunningProcess, workers: int) -> None:
        self.master, self._fleet, self._workers = master, fleet, workers

    def connected(self) -> int:
        """How many workers are registered, as the fleet last said."""
        lines = self._fleet.out.splitlines()
        return int(json.loads(lines[-1])["connected"]) if lines else 0

    def wait_until_connected(self, seconds: float) -> bool:
        """Whether all are connected within the time. Fails when the fleet or the master has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self._fleet.is_running, self._fleet.err[-2000:]
            assert self.master.process.is_running, self.master.process.err[-2000:]
            if self.connected() == self._workers:
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def restart(self, within_seconds: float) -> Comeback:
        """Restarts the master and waits until all are back."""
        self.master.stop()
        eventually(lambda: self.connected() == 0)
        self.master.start()
        started = time.monotonic()
        self.wait_until_connected(within_seconds)
        seconds = time.monotonic() - started
        back = self.connected()
        # A master whose fleet is back is healthy soon, and has heard each worker once.
        eventually(lambda: self.master.is_healthy() and self.master.active() >= back, within_seconds)
        # On a busy machine /metrics of a large fleet may take longer than the client waits.
        return eventually(lambda: self._comeback(back, seconds), within_seconds)

    def _comeback(self, back: int, seconds: float) -> Comeback:
        requests = self.master.samples("fleetpulse_grpc_requests_total")
        ended = {labels[0]: count for labels, count in requests.items() if labels[1] == "Connect"}
        attempts = self.master.samples("fleetpulse_task_attempts_ended_total")
        return Comeback(
            workers=self._workers, back=back, seconds=round(seconds, 1),
            wasted_streams=int(ended.get("CANCELLED", 0.0) + ended.get("DEADLINE_EXCEEDED", 0.0)),
            asked_to_come_later=int(self.master.sample("fleetpulse_worker_sessions_refused_total", "master_busy")),
            falsely_inactive=len(inactive_workers(self.master)),
            lost_attempts=int(sum(count for labels, count in attempts.items() if "lost" in labels)),
            is_held=self.master.sample("fleetpulse_task_rescheduling_held") == 1.0,
        )  # fmt: skip


def inactive_workers(master: Master) -> list[str]:
    """The workers that the log calls inactive."""
    lines: list[Any] = [re.search(r"worker (\S+) is inactive", line) for line in master.log_lines("is inactive")]
    return [match[1] for match in lines if match]


def running(jobs: Jobs, command: str, worker_ids: list[str]) -> list[str]:
    """Submits a task to each of the workers and waits until it runs."""
    tasks = [jobs.submit(*command.split(), constraints={"worker_id": worker_id}) for worker_id in worker_ids]
    for task_id in tasks:
        jobs.when(task_id, "running")
    return tasks


def attempts(jobs: Jobs, tasks: list[str]) -> list[list[tuple[str, str]]]:
    """The status and the worker of every attempt of each task."""
    return [[(one["status"], one["worker_id"]) for one in jobs.get(task_id)["attempts"]] for task_id in tasks]
