"""A history indexed for the rules: by task, attempt, container and worker. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from tests.chaos import history
from tests.chaos.jobs import Job

TERMINAL_TASKS = frozenset({"completed", "failed", "cancelled"})
TERMINAL_ATTEMPTS = frozenset({"completed", "failed", "stopped", "lost"})

AttemptKey = tuple[str, int]


class Attempt(NamedTuple):
    """An attempt in the final state."""

    attempt: int
    worker_id: str
    status: str
    assigned_at: float
    running_at: float | None
    finished_at: float | None
    container_id: str | None
    exit_code: int | None
    reason: str | None
    error: str | None = None


class TaskEvent(NamedTuple):
    """An event of a task. ``attempt`` is 0 for an event of the whole task."""

    time: float
    kind: str
    attempt: int


class Task(NamedTuple):
    """A task in the final state. ``attempts`` are in the order of the answer."""

    task_id: str
    name: str
    status: str
    exit_code: int | None
    attempts: Sequence[Attempt]
    events: Sequence[TaskEvent]


class TaskObservation(NamedTuple):
    """A task in a listing during the run."""

    time: float
    status: str
    attempt: int
    worker_id: str | None
    container_id: str | None
    exit_code: int | None


class Container:
    """A container and its events."""

    def __init__(self, container_id: str, task_id: str, attempt: int, worker_id: str) -> None:
        self.container_id, self.task_id, self.attempt, self.worker_id = container_id, task_id, attempt, worker_id
        self.started: list[float] = []
        self.died_at: float | None = None
        """``None`` while it runs, and if it never ran."""
        self.exit_code: int | None = None

    @property
    def key(self) -> AttemptKey:
        return self.task_id, self.attempt

    def ran_at(self, time: float) -> bool:
        """Whether it ran at that time."""
        return bool(self.started) and self.started[0] <= time and (self.died_at is None or time < self.died_at)

    def __str__(self) -> str:
        return (
            f"container {self.container_id[:12]} of attempt {self.attempt} of task {self.task_id} on {self.worker_id}"
        )

    def apply(self, event: history.ContainerEvent) -> None:
        """Applies the next event, in order of time."""
        if event.action == "start":
            self.started.append(event.time)
            self.died_at = None
        elif event.action == "die":
            self.died_at, self.exit_code = event.time, event.exit_code


class HistoryIndex:
    """The queries of the rules on a history."""

    def __init__(self, records: Sequence[history.Record]) -> None:
        starts = list(history.of_type(records, history.RunStarted))
        if len(starts) != 1:
            raise ValueError(f"a history has one RunStarted, this one {len(starts)}")
        self.run: history.RunStarted = starts[0]
        submits = list(history.of_type(records, history.SubmitSent))
        self.jobs: Mapping[str, Job] = {record.job["key"]: Job(**record.job) for record in submits}
        self.acknowledged: Mapping[str, list[str]] = _grouped(
            (record.key, record.task_id) for record in history.of_type(records, history.Acknowledged)
        )
        self.cancels_sent = {record.task_id for record in history.of_type(records, history.CancelSent)}
        self.cancels_accepted = _first(
            (record.task_id, record.time) for record in history.of_type(records, history.CancelAccepted)
        )
        found = list(history.of_type(records, history.FinalTask))
        self.missing = {record.task_id for record in found if record.task is None}
        self.tasks: Mapping[str, Task] = {
            record.task_id: parse_task(record.task) for record in found if record.task is not None
        }
        self.attempts: Mapping[AttemptKey, Attempt] = {
            (task.task_id, attempt.attempt): attempt for task in self.tasks.values() for attempt in task.attempts
        }
        self.observations: Mapping[str, list[TaskObservation]] = _grouped(
            (record.task["task_id"], parse_observation(record.time, record.task))
            for record in history.of_type(records, history.TaskObserved)
        )
        self.logs = {
            (record.task_id, record.attempt): record.content for record in history.of_type(records, history.FinalLog)
        }
        self.containers: Sequence[Container] = _containers(history.of_type(records, history.ContainerEvent))
        self.final_listing: history.ContainerListing | None = _last(history.of_type(records, history.ContainerListing))
        self.faults: Sequence[history.Fault] = list(history.of_type(records, history.Fault))
        self.activity: Sequence[history.WorkerListing] = sorted(
            history.of_type(records, history.WorkerListing), key=lambda seen: seen.time
        )
        self.open_files: Sequence[history.OpenFiles] = list(history.of_type(records, history.OpenFiles))
        self.anomalies: Sequence[history.Anomaly] = list(history.of_type(records, history.Anomaly))
        self.rounds = sum(1 for _ in history.of_type(records, history.RoundStarted))
        self.has_ended = any(history.of_type(records, history.RunEnded))

    def job_of(self, task: Task) -> Job | None:
        """The job of a task."""
        return self.jobs.get(task.name)

    def faults_of(self, worker_id: str) -> Sequence[history.Fault]:
        """The faults that can disconnect this worker."""
        return [fault for fault in self.faults if fault.what in history.BREAKING and fault.worker_id in {"", worker_id}]

    def had_fault(self, worker_id: str, since: float, until: float) -> bool:
        """Whether such a fault happened between two times."""
        return any(since <= fault.time <= until for fault in self.faults_of(worker_id))


def parse_task(task: Mapping[str, Any]) -> Task:
    """Parses a task of the REST API with attempts and events."""
    return Task(
        task_id=task["task_id"],
        name=task["name"],
        status=task["status"],
        exit_code=task["exit_code"],
        attempts=[_parse_attempt(attempt) for attempt in task["attempts"]],
        events=[TaskEvent(_seconds(event["time"]), event["kind"], event["attempt"] or 0) for event in task["events"]],
    )


def parse_observation(time: float, task: Mapping[str, Any]) -> TaskObservation:
    """Parses a task of a listing."""
    return TaskObservation(
        time, task["status"], task["attempt"] or 0, task.get("worker_id"), task.get("container_id"), task["exit_code"]
    )


def _parse_attempt(attempt: Mapping[str, Any]) -> Attempt:
    return Attempt(
        attempt=attempt["attempt"],
        worker_id=attempt["worker_id"],
        status=attempt["status"],
        assigned_at=_seconds(attempt["assigned_at"]),
        running_at=_optional_seconds(attempt["running_at"]),
        finished_at=_optional_seconds(attempt["finished_at"]),
        container_id=attempt["container_id"],
        exit_code=attempt["exit_code"],
        reason=attempt["reason"],
        error=attempt["error"],
    )


def _seconds(time: float | str) -> float:
    return datetime.fromisoformat(time).timestamp() if isinstance(time, str) else float(time)


def _optional_seconds(time: float | str | None) -> float | None:
    return None if time is None else _seconds(time)


def _containers(events: Iterable[history.ContainerEvent]) -> list[Container]:
    containers: dict[str, Container] = {}
    for event in sorted(events, key=lambda event: event.time):
        container = containers.setdefault(
            event.container_id, Container(event.container_id, event.task_id, event.attempt, event.worker_id)
        )
        container.apply(event)
    return list(containers.values())


def _grouped(pairs: Iterable[tuple[str, Any]]) -> dict[str, list[Any]]:
    groups: defaultdict[str, list[Any]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return dict(groups)


def _first(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    first: dict[str, float] = {}
    for key, value in pairs:
        first.setdefault(key, value)
    return first


def _last(records: Iterable[Any]) -> Any:
    last = None
    for last in records:  # noqa: B007 - the last one is what is wanted
        pass
    return last
