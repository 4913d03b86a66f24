"""Tasks in memory, moved by the real transitions as a test says, and the web application over them."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import falcon
from falcon.testing import Result, TestClient

from fleetpulse.master.api import middleware, problems
from fleetpulse.master.api.access import AccessMiddleware
from fleetpulse.master.api.subscribers import Subscribers
from fleetpulse.master.api.tasks import task_resources
from fleetpulse.master.errors import (
    FleetPulseError,
    IdempotencyConflict,
    InvalidCursor,
    LogExpired,
    UnknownTask,
    UnknownWorker,
)
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.tasks.records import (
    Attempt,
    AttemptStatus,
    Idempotency,
    LogSlice,
    Outcome,
    Task,
    TaskDetails,
    TaskEvent,
    TaskPage,
    TaskQuery,
)
from fleetpulse.master.tasks.registry import TaskWatch, TaskWatchers
from fleetpulse.master.tasks.request import TaskRequest
from fleetpulse.master.tasks.service import TaskService
from fleetpulse.master.tasks.transitions import Change, Report, cancelled, placed, reported, submitted

JSON = {"Content-Type": "application/json"}


class FakeTaskService:
    """A ``TaskService`` that keeps everything in memory and places nothing by itself."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.watchers = TaskWatchers()
        self.failing: FleetPulseError | None = None
        self.drained: dict[str, str] = {}
        self.workers = {"rack-7"}
        self.expired: set[str] = set()
        self.asked_for: set[str] = set()
        self._tasks: dict[str, Task] = {}
        self._attempts: defaultdict[str, dict[int, Attempt]] = defaultdict(dict)
        self._events: defaultdict[str, list[TaskEvent]] = defaultdict(list)
        self._logs: defaultdict[tuple[str, int], bytes] = defaultdict(bytes)
        self._keys: dict[str, tuple[str, str]] = {}

    # What REST asks for

    def submit(
        self, spec: TaskRequest, idempotency: Idempotency | None = None, submitter: str | None = None
    ) -> tuple[Task, bool]:
        self._answer()
        task_id = f"task-{len(self._tasks) + 1}"
        if idempotency is not None:
            digest, known = self._keys.setdefault(idempotency.key, (idempotency.digest, task_id))
            if digest != idempotency.digest:
                raise IdempotencyConflict(f"the key {idempotency.key!r} was used for another request")
            if known in self._tasks:
                return self._tasks[known], False
        return self._apply(submitted(task_id, spec, self.now, submitter)), True

    def cancel(self, task_id: str) -> Task:
        task = self._task(task_id)
        live = [attempt for attempt in self._attempts[task_id].values() if not attempt.status.is_terminal]
        change = cancelled(task, live[0] if live else None, self.now)
        return task if change is None else self._apply(change)

    def find(self, query: TaskQuery) -> TaskPage:
        self._answer()
        if query.cursor is not None and not query.cursor.isdecimal():
            raise InvalidCursor("the cursor is not one of this master's")
        found = [task for task in reversed(self._tasks.values()) if self._is_wanted(task, query)]
        start = int(query.cursor or 0)
        end = start + query.limit
        newest = {task_id: attempts[max(attempts)] for task_id, attempts in list(self._attempts.items()) if attempts}
        return TaskPage(found[start:end], newest, str(end) if end < len(found) else None)

    def details(self, task_id: str) -> TaskDetails:
        task = self._task(task_id)
        return TaskDetails(task, list(self._attempts[task_id].values()), self._events[task_id])

    def queue_reason(self, task: Task) -> str | None:
        return "no worker is there" if task.status == "queued" else None

    def worker_attempts(self, worker_id: str, limit: int = 100) -> Sequence[tuple[Attempt, Task]]:
        self._check_worker(worker_id)
        found = [
            (attempt, self._tasks[task_id])
            for task_id, attempts in self._attempts.items()
            for attempt in attempts.values()
            if attempt.worker_id == worker_id
        ]
        return sorted(found, key=lambda pair: pair[0].assigned_at, reverse=True)[:limit]

    def read_log(self, task_id: str, attempt: int | None, offset: int, limit: int) -> tuple[int, LogSlice]:
        task = self._task(task_id)
        if task_id in self.expired:
            raise LogExpired(f"the log of {task_id} was deleted")
        number = task.attempt if attempt is None else attempt
        log = self._logs[task_id, number]
        start = max(len(log) + offset, 0) if offset < 0 else min(offset, len(log))
        return number, LogSlice(start, log[start : start + limit], len(log))

    def watch(self, task_id: str) -> AbstractContextManager[TaskWatch]:
        return self.watchers.watch(task_id)

    def drain(self, worker_id: str, reason: str) -> None:
        self._check_worker(worker_id)
        self.drained[worker_id] = reason

    def undrain(self, worker_id: str) -> None:
        self._check_worker(worker_id)
        self.drained.pop(worker_id, None)

    # What a test makes happen

    def place(self, task_id: str, worker_id: str = "rack-7", gpu_uuids: tuple[str, ...] = ()) -> int:
        """Begin the next attempt; its number."""
        return self._apply(placed(self._tasks[task_id], worker_id, gpu_uuids, self.now)).attempt

    def run(self, task_id: str) -> None:
        """The container has started."""
        self._report(task_id, AttemptStatus.RUNNING)

    def end(self, task_id: str, exit_code: int | None = 0, **outcome: Any) -> None:
        """The container has ended."""
        status = AttemptStatus.COMPLETED if exit_code == 0 else AttemptStatus.FAILED
        self._report(task_id, status, Outcome(exit_code, **outcome))

    def say(self, task_id: str, text: bytes) -> None:
        """The container has written something."""
        self._logs[task_id, self._tasks[task_id].attempt] += text
        self.watchers.notify(task_id)

    # The rest

    def _report(self, task_id: str, status: AttemptStatus, outcome: Outcome = Outcome()) -> None:  # noqa: B008 - immutable
        attempt = self._attempts[task_id][self._tasks[task_id].attempt]
        report = Report(task_id, attempt.attempt, status, "c0ffee", outcome)
        change = reported(self._tasks[task_id], attempt, attempt.worker_id, report, self.now)
        assert change is not None
        self._apply(change)

    def _apply(self, change: Change) -> Task:
        self.now += 0.25
        task_id = change.task.task_id
        self._tasks[task_id] = change.task
        if change.attempt is not None:
            self._attempts[task_id][change.attempt.attempt] = change.attempt
        self._events[task_id] += change.events
        self.watchers.notify(task_id)
        return change.task

    def _answer(self) -> None:
        if self.failing is not None:
            raise self.failing

    def _task(self, task_id: str) -> Task:
        self.asked_for.add(task_id)
        self._answer()
        if task_id not in self._tasks:
            raise UnknownTask(task_id)
        return self._tasks[task_id]

    def _check_worker(self, worker_id: str) -> None:
        self._answer()
        if worker_id not in self.workers:
            raise UnknownWorker(worker_id)

    def _is_wanted(self, task: Task, query: TaskQuery) -> bool:
        attempts = self._attempts[task.task_id].values()
        return (
            (not query.statuses or task.status in query.statuses)
            and (query.worker_id is None or any(attempt.worker_id == query.worker_id for attempt in attempts))
            and (query.name_prefix is None or task.request.name.startswith(query.name_prefix))
        )


class TaskApi:
    """The paths of tasks over a fake task service, with everything that a request goes through."""

    def __init__(self, *guards: AccessMiddleware) -> None:
        self.fake = FakeTaskService()
        self.service = cast("TaskService", self.fake)
        self.app: falcon.App[Any, Any] = falcon.App(
            middleware=[
                middleware.RequestMetrics(Instruments()),
                middleware.Fairness(),
                *guards,
                middleware.Compression(),
            ]
        )
        problems.install(self.app)
        self.subscribers = Subscribers(check_seconds=0.02)
        for path, resource in task_resources(self.service, self.subscribers).items():
            self.app.add_route(path, resource)
        self.client = TestClient(self.app)

    def get(self, path: str, **kwargs: Any) -> Any:
        """What a GET answers, which must be a 200."""
        result = self.client.simulate_get(path, **kwargs)
        assert result.status_code == 200, result.text
        return result.json

    def post(self, body: object, **headers: str) -> Result:
        """Submit; names of headers with '_' for '-'."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.simulate_post("/api/tasks", json=body, headers=named)

    def submit(self, **fields: Any) -> str:
        """The id of a new task."""
        result = self.post({"docker_image": "busybox", **fields})
        assert result.status_code == 201, result.text
        task_id: str = result.json["task_id"]
        return task_id


@contextmanager
def running_task_api(*guards: AccessMiddleware) -> Iterator[TaskApi]:
    """With nobody following when it ends."""
    web = TaskApi(*guards)
    yield web
    assert len(web.fake.watchers) == 0
