"""``python -m tests.bench.history FOLDER COUNT``: writes a store with many ended tasks, as after months of use.

The store's own code writes it. Prints the number of tasks as JSON.
"""

import json
import sys
from pathlib import Path

from gevent.event import Event

from fleetpulse.master.instruments import Instruments
from fleetpulse.master.store.database import default_url
from fleetpulse.master.store.store import SqlTaskStore
from fleetpulse.master.tasks.records import Attempt, AttemptStatus, Changes, Outcome, Task, TaskEvent, TaskStatus
from tests.bench.processes import run_json
from tests.master.requests import task_request
from tests.master.store.encryptor import ENCRYPTOR

_IN_A_ROW = 5_000
_BEGAN = 1_700_000_000.0
_WORKERS = 40


def fill_history(folder: Path, count: int) -> None:
    """Creates such a store in ``folder`` in a separate process."""
    folder.mkdir()
    run_json("history", [sys.executable, "-m", "tests.bench.history", str(folder), str(count)], folder, 600.0)


def main() -> None:
    """Writes the tasks and waits until all of them are durable."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    store = SqlTaskStore(default_url(folder), ENCRYPTOR, Instruments().store)
    store.start()
    for first in range(0, count, _IN_A_ROW):
        written = Event()
        for number in range(first, min(first + _IN_A_ROW, count)):
            store.save(_ended(number))
        store.save(Changes(), written.set)
        written.wait()
    found = store.count_by_status()
    store.stop()
    print(json.dumps({"tasks": sum(found.values())}))


def _ended(number: int) -> Changes:
    started_at, task_id, worker_id = _BEGAN + number, f"task-{number:08}", f"rack-{number % _WORKERS}"
    has_failed = number % 10 == 0
    outcome = Outcome(exit_code=int(has_failed), oom_killed=False, reason="exit_code" if has_failed else None)
    task = Task(
        task_id, task_request("busybox:1", name=f"job-{number % 100}", command=("sh", "-c", "work")),
        TaskStatus.FAILED if has_failed else TaskStatus.COMPLETED, started_at,
        attempt=1, pending_at=started_at, running_at=started_at + 1.0, finished_at=started_at + 60.0, outcome=outcome,
    )  # fmt: skip
    attempt = Attempt(
        task_id, 1, worker_id, AttemptStatus.FAILED if has_failed else AttemptStatus.COMPLETED, started_at,
        preparing_at=started_at, running_at=started_at + 1.0, finished_at=started_at + 60.0, container_id=task_id,
        outcome=outcome,
    )  # fmt: skip
    kinds = ("submitted", "assigned", "preparing", "running", str(attempt.status))
    return Changes((task,), (attempt,), tuple(TaskEvent(task_id, started_at, kind, attempt=1) for kind in kinds))


if __name__ == "__main__":
    main()
