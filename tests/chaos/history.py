"""The history of a chaos run: all actions and observations, one JSON object per line, in the order of recording.

Times are Unix seconds. dockerd, the master and the workers run on the same machine, so one clock is enough.
"""

import base64
import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self, TextIO, TypeAlias


class RunStarted(NamedTuple):
    """The parameters of the run."""

    time: float
    kind: str
    seed: int
    inactivity_timeout_seconds: float
    worker_ids: list[str]


class RoundStarted(NamedTuple):
    time: float
    number: int


class Fault(NamedTuple):
    """Something was broken or repaired: one of ``BREAKING`` or ``MENDING``. ``worker_id`` is empty for the master."""

    time: float
    round: int
    what: str
    worker_id: str = ""


BREAKING = frozenset({"kill master", "kill worker", "cut", "stall"})
MENDING = frozenset({"start worker", "heal"})


class SubmitSent(NamedTuple):
    """A task is submitted for the first time. ``job`` is a ``Job`` as a mapping."""

    time: float
    job: dict[str, Any]


class Acknowledged(NamedTuple):
    """The master confirmed the task. One record for each answer."""

    time: float
    key: str
    task_id: str


class CancelSent(NamedTuple):
    time: float
    task_id: str


class CancelAccepted(NamedTuple):
    """The master accepted the cancel."""

    time: float
    task_id: str


class ContainerEvent(NamedTuple):
    """An event of dockerd: ``create``, ``start``, ``die`` or ``destroy``. A start may have a ``pid``."""

    time: float
    container_id: str
    task_id: str
    attempt: int
    worker_id: str
    action: str
    exit_code: int | None = None
    pid: int | None = None


class ContainerListing(NamedTuple):
    """The states of all containers of the fleet, by id, as in ``docker ps -a``."""

    time: float
    states: dict[str, str]


class WorkerListing(NamedTuple):
    """Whether each worker is active, according to the master. No record while it does not answer."""

    time: float
    active: dict[str, bool]


class TaskObserved(NamedTuple):
    """A task in a listing during the run. Recorded when it changed."""

    time: float
    task: dict[str, Any]


class FinalTask(NamedTuple):
    """A task at the end of the run, with attempts and events. ``task`` is ``None`` for a 404."""

    time: float
    task_id: str
    task: dict[str, Any] | None


class FinalLog(NamedTuple):
    """The log of one attempt at the end of the run, in base64."""

    time: float
    task_id: str
    attempt: int
    data: str

    @property
    def content(self) -> bytes:
        return base64.b64decode(self.data)


class OpenFiles(NamedTuple):
    """The number of open files of a process."""

    time: float
    round: int
    process: str
    pid: int
    files: int


class Anomaly(NamedTuple):
    """Something that must not happen: a traceback in a log, a fleet that did not recover."""

    time: float
    what: str


class LoadStopped(NamedTuple):
    """There are no more faults and submits."""

    time: float


class RunEnded(NamedTuple):
    """The final state is recorded."""

    time: float


Record: TypeAlias = (
    RunStarted | RoundStarted | Fault | SubmitSent | Acknowledged | CancelSent | CancelAccepted | ContainerEvent
    | ContainerListing | WorkerListing | TaskObserved | FinalTask | FinalLog | OpenFiles | Anomaly | LoadStopped
    | RunEnded
)  # fmt: skip

_TYPES: Mapping[str, type[Record]] = {
    kind.__name__: kind
    for kind in (
        RunStarted, RoundStarted, Fault, SubmitSent, Acknowledged, CancelSent, CancelAccepted, ContainerEvent,
        ContainerListing, WorkerListing, TaskObserved, FinalTask, FinalLog, OpenFiles, Anomaly, LoadStopped, RunEnded,
    )
}  # fmt: skip


def to_line(record: Record) -> str:
    """One line of a history, without its newline."""
    return json.dumps({"record": type(record).__name__, **record._asdict()})


def from_line(line: str) -> Record:
    """Parses a line. Raises ``ValueError`` for anything but a record."""
    fields = json.loads(line)
    try:
        return _TYPES[fields.pop("record")](**fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a record of a chaos run: {line[:80]}") from error


def load(path: Path) -> list[Record]:
    """Reads a history."""
    with path.open() as file:
        return [from_line(line) for line in file]


def save(path: Path, records: Iterable[Record]) -> None:
    """Writes a history."""
    with Recorder(path) as recorder:
        for record in records:
            recorder.add(record)


class Recorder:
    """Appends to a history, from any thread. Each record is flushed, so a killed run keeps its history."""

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
    """The time for a record."""
    return time.time()


def final_log(at: float, task_id: str, attempt: int, data: bytes) -> FinalLog:
    """Makes the record of a log."""
    return FinalLog(at, task_id, attempt, base64.b64encode(data).decode())


def of_type(records: Iterable[Record], kind: type[Any]) -> Iterator[Any]:
    """The records of one type."""
    return (record for record in records if isinstance(record, kind))
