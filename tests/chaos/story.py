"""A history arranged for the rules: by task, by attempt, by container, by worker. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from tests.chaos import history
from tests.chaos.jobs import Job

TERMINAL_TASKS = frozenset({"completed", "failed", "cancelled"})
TERMINAL_ATTEMPTS = frozenset({"completed", "failed", "stopped", "lost"})

AttemptKey = tuple[str, int]


class AttemptStory(NamedTuple):
    """An attempt as REST shows it."""

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


class EventStory(NamedTuple):
    """A line of a task's events; ``attempt`` is 0 where it is about the task as a whole."""

    time: float
    kind: str
    attempt: int


class TaskStory(NamedTuple):
    """A task as REST shows it at the end. ``attempts`` are in the order in which they were shown."""

    task_id: str
    name: str
    status: str
    exit_code: int | None
    attempts: Sequence[AttemptStory]
    events: Sequence[EventStory]


class Glimpse(NamedTuple):
    """What a listing showed of a task at some time of the run."""

    time: float
    status: str
    attempt: int
    worker_id: str | None
    container_id: str | None
    exit_code: int | None


class Container:
    """What dockerd did with one container."""

    def __init__(self, container_id: str, task_id: str, attempt: int, worker_id: str) -> None:
        self.container_id, self.task_id, self.attempt, self.worker_id = container_id, task_id, attempt, worker_id
        self.started: list[float] = []
        self.died_at: float | None = None
        """The last time; ``None`` while it runs, and when it never ran."""
        self.exit_code: int | None = None

    @property
    def key(self) -> AttemptKey:
        return self.task_id, self.attempt

    def ran_at(self, time: float) -> bool:
        """Whether it ran then."""
        return bool(self.started) and self.started[0] <= time and (self.died_at is None or time < self.died_at)

    def __str__(self) -> str:
        return (
            f"container {self.container_id[:12]} of attempt {self.attempt} of task {self.task_id} on {self.worker_id}"
        )

    def take(self, event: history.ContainerEvent) -> None:
        """The next event, in the order of time."""
        if event.action == "start":
            self.started.append(event.time)
            self.died_at = None
        elif event.action == "die":
            self.died_at, self.exit_code = event.time, event.exit_code


class Story:
    """Everything that the rules ask of a history."""

    def __init__(self, records: Sequence[history.Record]) -> None:
        began = list(history.of_type(records, history.Began))
        if len(began) != 1:
            raise ValueError(f"a history has one beginning, this one {len(began)}")
        self.began: history.Began = began[0]
        asked = list(history.of_type(records, history.Asked))
        self.jobs: Mapping[str, Job] = {record.job["key"]: Job(**record.job) for record in asked}
        self.acknowledged: Mapping[str, list[str]] = _grouped(
            (record.key, record.task_id) for record in history.of_type(records, history.Acknowledged)
        )
        self.cancels_asked = {record.task_id for record in history.of_type(records, history.CancelAsked)}
        self.cancels_accepted = _first(
            (record.task_id, record.time) for record in history.of_type(records, history.CancelAccepted)
        )
        found = list(history.of_type(records, history.TaskFound))
        self.missing = {record.task_id for record in found if record.task is None}
        self.tasks: Mapping[str, TaskStory] = {
            record.task_id: task_story(record.task) for record in found if record.task is not None
        }
        self.attempts: Mapping[AttemptKey, AttemptStory] = {
            (task.task_id, attempt.attempt): attempt for task in self.tasks.values() for attempt in task.attempts
        }
        self.glimpses: Mapping[str, list[Glimpse]] = _grouped(
            (record.task["task_id"], glimpse(record.time, record.task))
            for record in history.of_type(records, history.TaskSeen)
        )
        self.logs = {
            (record.task_id, record.attempt): record.content for record in history.of_type(records, history.LogFound)
        }
        self.containers: Sequence[Container] = _containers(history.of_type(records, history.ContainerEvent))
        self.last_look: history.Containers | None = _last(history.of_type(records, history.Containers))
        self.faults: Sequence[history.Fault] = list(history.of_type(records, history.Fault))
        self.activity: Sequence[history.WorkersSeen] = sorted(
            history.of_type(records, history.WorkersSeen), key=lambda seen: seen.time
        )
        self.open_files: Sequence[history.OpenFiles] = list(history.of_type(records, history.OpenFiles))
        self.troubles: Sequence[history.Trouble] = list(history.of_type(records, history.Trouble))
        self.rounds = sum(1 for _ in history.of_type(records, history.RoundBegan))
        self.has_ended = any(history.of_type(records, history.Ended))

    def job_of(self, task: TaskStory) -> Job | None:
        """What the task was to do."""
        return self.jobs.get(task.name)

    def breaks_of(self, worker_id: str) -> Sequence[history.Fault]:
        """The faults after which the master may not hear this worker."""
        return [fault for fault in self.faults if fault.what in history.BREAKS and fault.worker_id in {"", worker_id}]

    def was_broken(self, worker_id: str, since: float, until: float) -> bool:
        """Whether such a fault came between these times."""
        return any(since <= fault.time <= until for fault in self.breaks_of(worker_id))


def task_story(task: Mapping[str, Any]) -> TaskStory:
    """A task with attempts and events, from REST's words."""
    return TaskStory(
        task_id=task["task_id"],
        name=task["name"],
        status=task["status"],
        exit_code=task["exit_code"],
        attempts=[_attempt_story(attempt) for attempt in task["attempts"]],
        events=[EventStory(_seconds(event["time"]), event["kind"], event["attempt"] or 0) for event in task["events"]],
    )


def glimpse(time: float, task: Mapping[str, Any]) -> Glimpse:
    """A task in a listing, from REST's words."""
    return Glimpse(
        time, task["status"], task["attempt"] or 0, task.get("worker_id"), task.get("container_id"), task["exit_code"]
    )


def _attempt_story(attempt: Mapping[str, Any]) -> AttemptStory:
    return AttemptStory(
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
        container.take(event)
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
