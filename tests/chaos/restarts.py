"""A master that starts again every minute under a simulated fleet with tasks: ``python -m tests.chaos --restarts N``.

The workers are simulated, so this needs no Docker. All of them are alive all the time: whatever is inactive or lost is
a fault of the master or of the way back to it.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.e2e.fleet_restarts import Comeback, RestartedFleet, inactive_workers
from tests.e2e.jobs import Jobs
from tests.e2e.masters import started_master
from tests.e2e.processes import Processes

PERIOD_SECONDS = 60.0
CONNECT_SECONDS = 240.0
TASKS_EACH = 20
"""Of each kind: those that run to the end of the campaign, and in each round those that end in it or soon after."""

ALLOWED_WASTE_RATIO = 0.02


class TaskEnd(NamedTuple):
    """A task at the end of the campaign."""

    task_id: str
    must_have_ended: bool
    status: str
    attempts: int
    """Those that ran. If a restart overtakes an assignment, it never reaches its worker: it ends as lost, uses up no
    retry, and another one follows.
    """


def check(comebacks: list[Comeback], tasks: list[TaskEnd]) -> Iterator[str]:
    """Yields what was wrong."""
    for number, comeback in enumerate(comebacks, start=1):
        # The tasks tell which of the lost attempts had run.
        for problem in comeback._replace(lost_attempts=0).problems(ALLOWED_WASTE_RATIO):
            yield f"restart {number}: {problem}"
    for task in tasks:
        wanted = "completed" if task.must_have_ended else "running"
        if (task.status, task.attempts) != (wanted, 1):
            yield f"task {task.task_id} is {task.status}, and ran {task.attempts} times, not {wanted} in its first run"


def run(workers: int, minutes: int, folder: Path, log: Callable[[str], None]) -> list[str]:
    """Runs the campaign, and returns what was wrong."""
    processes = Processes(folder)
    try:
        return _run(processes, workers, minutes, log)
    finally:
        processes.close()


def _run(processes: Processes, workers: int, minutes: int, log: Callable[[str], None]) -> list[str]:
    master = started_master(processes)
    ramp_seconds = max(5.0, workers / 400.0)
    fleet = RestartedFleet(master, processes.simulate(master.target, workers, "--ramp", str(ramp_seconds)), workers)
    if not fleet.wait_until_connected(CONNECT_SECONDS):
        return [f"only {fleet.connected()} of {workers} workers connected at the beginning"]
    jobs = Jobs(master, "simulated")
    long = [jobs.submit("sleep", "100000") for _ in range(TASKS_EACH)]
    short: list[str] = []
    comebacks: list[Comeback] = []
    for number in range(1, minutes + 1):
        ends_at = time.monotonic() + PERIOD_SECONDS
        short += [jobs.submit("sleep", "20") for _ in range(TASKS_EACH)]
        comeback = fleet.restart(PERIOD_SECONDS)
        while time.monotonic() < ends_at:
            time.sleep(1.0)
        comebacks.append(comeback._replace(falsely_inactive=len(inactive_workers(master))))
        log(f"restart {number} of {minutes}: {comebacks[-1]}")
    for task_id in short:
        jobs.ended(task_id)
    tasks = [_end(jobs.get(task_id), must_have_ended=False) for task_id in long]
    tasks += [_end(jobs.get(task_id), must_have_ended=True) for task_id in short]
    return list(check(comebacks, tasks))


def _end(task: dict[str, Any], *, must_have_ended: bool) -> TaskEnd:
    ran = sum(attempt["running_at"] is not None for attempt in task["attempts"])
    return TaskEnd(str(task["task_id"]), must_have_ended, str(task["status"]), ran)
