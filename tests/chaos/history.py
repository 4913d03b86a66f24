"""The history of a chaos run: everything that was done and seen, one JSON object a line, in the order of recording.

Times are Unix seconds by the wall clock of the one machine on which all of it runs, dockerd and the master included.
"""

import base64
import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self, TextIO, TypeAlias


class Began(NamedTuple):
    """The terms of the run."""

    time: float
    kind: str
    seed: int
    inactivity_timeout_seconds: float
    worker_ids: list[str]


class RoundBegan(NamedTuple):
    time: float
    number: int


class Fault(NamedTuple):
    """Something was broken or mended: one of ``BREAKS`` or ``MENDS``. ``worker_id`` is empty for the master."""

    time: float
    round: int
    what: str
    worker_id: str = ""


BREAKS = frozenset({"kill master", "kill worker", "cut", "stall"})
MENDS = frozenset({"start worker", "heal"})


class Asked(NamedTuple):
    """A task is submitted for the first time; ``job`` is a ``Job`` as a mapping."""

    time: float
    job: dict[str, Any]


class Acknowledged(NamedTuple):
    """The master said that it has the task. Once for every such answer."""

    time: float
    key: str
    task_id: str


class CancelAsked(NamedTuple):
    time: float
    task_id: str


class CancelAccepted(NamedTuple):
    """The master said that it will end the task."""

    time: float
    task_id: str


class ContainerEvent(NamedTuple):
    """dockerd did this: ``create``, ``start``, ``die``, ``destroy``. A start has the ``pid`` if it was seen in time."""

    time: float
    container_id: str
    task_id: str
    attempt: int
    worker_id: str
    action: str
    exit_code: int | None = None
    pid: int | None = None


class Containers(NamedTuple):
    """All containers of the fleet at one moment, by id: state, as ``docker ps -a`` has it."""

    time: float
    states: dict[str, str]


class WorkersSeen(NamedTuple):
    """Which workers the master calls active. Absent while it does not answer."""

    time: float
    active: dict[str, bool]


class TaskSeen(NamedTuple):
    """A task as a listing showed it while the run went on; recorded when it differs from the last one."""

    time: float
    task: dict[str, Any]


class TaskFound(NamedTuple):
    """A task as REST shows it at the end, with attempts and events. ``task`` is ``None`` where the answer was 404."""

    time: float
    task_id: str
    task: dict[str, Any] | None


class LogFound(NamedTuple):
    """The log of one attempt at the end, in base64."""

    time: float
    task_id: str
    attempt: int
    data: str

    @property
    def content(self) -> bytes:
        return base64.b64decode(self.data)


class OpenFiles(NamedTuple):
    """How many files a process has open."""

    time: float
    round: int
    process: str
    pid: int
    files: int


class Trouble(NamedTuple):
    """Something that must not happen was seen at once: a traceback in a log, a fleet that did not recover."""

    time: float
    what: str


class Settled(NamedTuple):
    """No fault since, and no submit: from here on everything comes to rest."""

    time: float


class Ended(NamedTuple):
    """The last look was taken."""

    time: float


Record: TypeAlias = (
    Began | RoundBegan | Fault | Asked | Acknowledged | CancelAsked | CancelAccepted | ContainerEvent | Containers
    | WorkersSeen | TaskSeen | TaskFound | LogFound | OpenFiles | Trouble | Settled | Ended
)  # fmt: skip

_TYPES: Mapping[str, type[Record]] = {
    kind.__name__: kind
    for kind in (
        Began, RoundBegan, Fault, Asked, Acknowledged, CancelAsked, CancelAccepted, ContainerEvent, Containers,
        WorkersSeen, TaskSeen, TaskFound, LogFound, OpenFiles, Trouble, Settled, Ended,
    )
}  # fmt: skip


def to_line(record: Record) -> str:
    """One line of a history, without its newline."""
    return json.dumps({"record": type(record).__name__, **record._asdict()})


def from_line(line: str) -> Record:
    """The record of a line. Raises ``ValueError`` for what is none."""
    fields = json.loads(line)
    try:
        return _TYPES[fields.pop("record")](**fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a record of a chaos run: {line[:80]}") from error


def load(path: Path) -> list[Record]:
    """A whole history."""
    with path.open() as file:
        return [from_line(line) for line in file]


def save(path: Path, records: Iterable[Record]) -> None:
    """Write a whole history."""
    with Recorder(path) as recorder:
        for record in records:
            recorder.add(record)


class Recorder:
    """Adds to a history, from any thread; what was added is in the file even when the run is killed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO = path.open("w")
        self._lock = threading.Lock()

    def add(self, record: Record) -> None:
        with self._lock:
            if not self._file.closed:
                self._file.write(to_line(record) + "\n")
                self._file.flush()

    def close(self) -> None:
        with self._lock:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def now() -> float:
    """The time of a record."""
    return time.time()


def log_found(at: float, task_id: str, attempt: int, data: bytes) -> LogFound:
    """A log as it is recorded."""
    return LogFound(at, task_id, attempt, base64.b64encode(data).decode())


def of_type(records: Iterable[Record], kind: type[Any]) -> Iterator[Any]:
    """The records of one type."""
    return (record for record in records if isinstance(record, kind))
