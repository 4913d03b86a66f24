"""The queries of the store, each in one transaction that sees one state, and the threads that run them."""

import base64
import binascii
import struct
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import gevent
from gevent.event import Event
from gevent.lock import Semaphore
from gevent.threadpool import ThreadPool
from sqlalchemy import BigInteger, ColumnElement, Connection, Engine, Select, and_, func, literal, select, union_all
from sqlalchemy.exc import SQLAlchemyError

from fleetpulse.master.errors import IdempotencyConflict, InvalidCursor, StoreUnavailable, UnknownTask
from fleetpulse.master.store import rows
from fleetpulse.master.store.database import error_message
from fleetpulse.master.store.encryption import Encryptor
from fleetpulse.master.store.logs import log_size, read_slice
from fleetpulse.master.store.tables import attempts, events, tasks, workers
from fleetpulse.master.tasks.records import (
    Attempt,
    Drain,
    Idempotency,
    LiveTask,
    LogSlice,
    Task,
    TaskDetails,
    TaskEvent,
    TaskPage,
    TaskQuery,
    TaskStatus,
)

Found = TypeVar("Found")

FEW_NAMES = 10_000
"""Tasks that are sorted for a page rather than walked past."""

_TASK_WIDTH = len(rows.TASK_COLUMNS)
_NEWEST = and_(attempts.c.task_id == tasks.c.task_id, attempts.c.attempt == tasks.c.attempt)
_LIVE = [str(status) for status in TaskStatus if not status.is_terminal]
_CURSOR = struct.Struct(">qI")
_LAST_CODE_POINT = 0x10FFFF


class _Failed(NamedTuple):
    error: Exception


class Readers:
    """Native threads that read, so that a slow answer holds up neither the hub nor the writer. Used on the hub."""

    def __init__(self, engine: Engine, threads: int) -> None:
        self._engine = engine
        self._pool = ThreadPool(threads)
        self._free = Semaphore(threads)
        self._open = Event()

    def start(self) -> None:
        self._open.set()

    def run(self, query: Callable[[Connection], Found], timeout_seconds: float) -> Found:
        """Waits for the result. Raises ``StoreUnavailable`` when none comes in time."""
        timed_out = StoreUnavailable(f"the database has not answered for {timeout_seconds:g} s")
        deadline = time.monotonic() + timeout_seconds
        if not self._open.is_set():
            raise StoreUnavailable("the store is closed")
        if not self._free.acquire(timeout=timeout_seconds):
            raise timed_out
        if not self._open.is_set():  # stopped meanwhile
            self._free.release()
            raise StoreUnavailable("the store is closed")
        answer = self._pool.spawn(self._run, query)
        answer.rawlink(lambda _: self._free.release())
        answer.wait(max(deadline - time.monotonic(), 0.0))
        if not answer.ready():
            raise timed_out
        found = answer.get()
        if isinstance(found, _Failed):
            raise found.error
        return cast("Found", found)

    def stop(self, timeout_seconds: float) -> None:
        """Ends the threads, when they have answered what they run."""
        if self._open.is_set():
            self._open.clear()
            with gevent.Timeout(timeout_seconds, False):  # type: ignore[arg-type]  # False: end quietly
                self._pool.kill()

    def _run(self, query: Callable[[Connection], Found]) -> Found | _Failed:
        """Returns an error rather than raise it: gevent would write it to stderr, with its traceback."""
        try:
            with self._engine.connect() as connection:
                return query(connection)
        except SQLAlchemyError as error:
            unavailable = StoreUnavailable(f"the database cannot be read: {error_message(error)}")
            unavailable.__cause__ = error
            return _Failed(unavailable)
        except Exception as error:  # noqa: BLE001 - raised to the caller
            return _Failed(error)


def load_live(connection: Connection, encryptor: Encryptor) -> Sequence[LiveTask]:
    """Returns the tasks that have not ended, with the values of their environments. An attempt that has ended is left
    out: a task that waits for its next one has none."""
    live = (
        select(*rows.TASK_COLUMNS, *rows.ATTEMPT_COLUMNS, tasks.c.env)
        .select_from(tasks.outerjoin(attempts, _NEWEST))
        .where(tasks.c.status.in_(_LIVE))
        .order_by(tasks.c.sequence)
    )
    found = []
    for row in connection.execute(live):
        attempt = rows.attempt_from(row[_TASK_WIDTH:-1])
        if attempt is not None and attempt.status.is_terminal:
            attempt = None
        received = log_size(connection, attempt.task_id, attempt.attempt) if attempt else 0
        task = rows.with_env(rows.task_from(row[:_TASK_WIDTH]), row[-1], encryptor)
        found.append(LiveTask(task, attempt, received))
    return found


def submitted_with(connection: Connection, encryptor: Encryptor, idempotency: Idempotency) -> str | None:
    """Returns the task that has the key. Raises ``IdempotencyConflict`` when it has another digest."""
    columns = (tasks.c.idempotency_digest, tasks.c.task_id)
    found = connection.execute(select(*columns).where(tasks.c.idempotency_key == idempotency.key)).first()
    if found is None:
        return None
    stored, task_id = found
    if not encryptor.matches_digest(stored, idempotency.digest):
        raise IdempotencyConflict(f"the idempotency key {idempotency.key!r} was used for another request")
    return str(task_id)


def count_by_status(connection: Connection) -> Mapping[TaskStatus, int]:
    counted = connection.execute(select(tasks.c.status, func.count()).group_by(tasks.c.status))
    return dict.fromkeys(TaskStatus, 0) | {TaskStatus(status): count for status, count in counted}


def find(connection: Connection, query: TaskQuery) -> TaskPage:
    page = find_page(connection, query)
    found = connection.execute(
        select(*rows.LISTED_COLUMNS, *rows.ATTEMPT_COLUMNS)
        .select_from(tasks.outerjoin(attempts, _NEWEST))
        .where(tasks.c.sequence.in_(page.sequences))
        .order_by(tasks.c.sequence.desc())
    ).all()
    newest = (rows.attempt_from(row[_TASK_WIDTH:]) for row in found)
    listed = [rows.listed_task_from(row[:_TASK_WIDTH]) for row in found]
    return TaskPage(
        tasks=[task for task, _ in listed],
        truncated={task.task_id: missing for task, missing in listed if missing},
        attempts={attempt.task_id: attempt for attempt in newest if attempt is not None},
        next_cursor=page.next_cursor,
    )


def details(connection: Connection, task_id: str) -> TaskDetails:
    row = connection.execute(select(*rows.TASK_COLUMNS).where(tasks.c.task_id == task_id)).first()
    if row is None:
        raise UnknownTask(task_id)
    of_task = select(*rows.ATTEMPT_COLUMNS).where(attempts.c.task_id == task_id).order_by(attempts.c.attempt)
    history = select(*rows.EVENT_COLUMNS).where(events.c.task_id == task_id).order_by(events.c.event_id)
    tried = [rows.attempt_from(attempt) for attempt in connection.execute(of_task)]
    return TaskDetails(
        rows.task_from(row),
        [attempt for attempt in tried if attempt is not None],
        [TaskEvent(*event) for event in connection.execute(history)],
    )


def assigned_to(connection: Connection, task_id: str, attempt: int) -> str | None:
    # A worker may name any number, also one that is no INTEGER of PostgreSQL's.
    number = literal(attempt, BigInteger)
    return connection.scalar(
        select(attempts.c.worker_id).where(attempts.c.task_id == task_id, attempts.c.attempt == number)
    )


def worker_attempts(connection: Connection, worker_id: str, limit: int) -> Sequence[tuple[Attempt, Task]]:
    found = connection.execute(
        select(*rows.LISTED_COLUMNS, *rows.ATTEMPT_COLUMNS)
        .join_from(attempts, tasks, attempts.c.task_id == tasks.c.task_id)
        .where(attempts.c.worker_id == worker_id)
        .order_by(attempts.c.assigned_at.desc(), tasks.c.sequence.desc(), attempts.c.attempt.desc())
        .limit(limit)
    )
    pairs = ((rows.attempt_from(row[_TASK_WIDTH:]), rows.listed_task_from(row[:_TASK_WIDTH])) for row in found)
    return [(attempt, task) for attempt, (task, _) in pairs if attempt is not None]


def read_log(connection: Connection, task_id: str, attempt: int, offset: int, limit: int) -> LogSlice:
    if connection.scalar(select(literal(1)).where(tasks.c.task_id == task_id)) is None:
        raise UnknownTask(task_id)
    return read_slice(connection, task_id, attempt, offset, limit)


def drains(connection: Connection) -> Sequence[Drain]:
    drained = select(workers.c.worker_id, workers.c.drain_reason, workers.c.drained_since)
    found = connection.execute(drained.where(workers.c.drained_since.is_not(None)).order_by(workers.c.worker_id))
    return [Drain(*row) for row in found]


def knows_worker(connection: Connection, worker_id: str) -> bool:
    """Whether the worker was ever saved or drained."""
    return connection.scalar(select(literal(1)).where(workers.c.worker_id == worker_id)) is not None


class Page(NamedTuple):
    """``sequences`` of its tasks, newest first."""

    sequences: Sequence[int]
    next_cursor: str | None


def find_page(connection: Connection, query: TaskQuery, few_names: int = FEW_NAMES) -> Page:
    """Finds a page of tasks at the cost of the page, not of the table, from indexes alone. Raises ``InvalidCursor``.

    Without a name prefix it is the end of one range of an index for each status. With one, either the tasks of those
    names are sorted, which is fast when they are few, or tasks are walked from the newest, leaving out other names,
    which is fast when they are many.
    """
    before = None if query.cursor is None else _decode_cursor(query.cursor)
    if query.name_prefix and _are_few(connection, query.name_prefix, few_names):
        chosen = _sorted(query, query.name_prefix, before)
    else:
        chosen = _walked(query, before)
    sequences = connection.scalars(chosen.limit(query.limit + 1)).all()
    if len(sequences) <= query.limit:
        return Page(sequences, None)
    return Page(sequences[: query.limit], _encode_cursor(sequences[query.limit - 1]))


def name_range(prefix: str) -> tuple[str, str | None]:
    """Returns the first name with a prefix, and the first one after all of them, in the order of their bytes."""
    for length in range(len(prefix), 0, -1):
        following = ord(prefix[length - 1]) + 1
        if following == 0xD800:  # surrogates are no characters
            following = 0xE000
        if following <= _LAST_CODE_POINT:
            return prefix, prefix[: length - 1] + chr(following)
    return prefix, None


def _encode_cursor(sequence: int) -> str:
    check = zlib.crc32(struct.pack(">q", sequence))
    return base64.urlsafe_b64encode(_CURSOR.pack(sequence, check)).decode()


def _decode_cursor(cursor: str) -> int:
    try:
        packed = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
        sequence, _ = _CURSOR.unpack(packed)
    except (ValueError, binascii.Error, struct.error):
        sequence = -1
    if not isinstance(sequence, int) or sequence < 0 or _encode_cursor(sequence) != cursor:
        raise InvalidCursor("the cursor is not one that a page of tasks gave; begin without one")
    return sequence


def _are_few(connection: Connection, prefix: str, few_names: int) -> bool:
    named = select(literal(1)).select_from(tasks).where(*_named(prefix)).limit(few_names + 1).subquery()
    return (connection.scalar(select(func.count()).select_from(named)) or 0) <= few_names


def _named(prefix: str) -> Sequence[ColumnElement[bool]]:
    first, after = name_range(prefix)
    conditions = [tasks.c.name >= first]
    return conditions if after is None else [*conditions, tasks.c.name < after]


def _sorted(query: TaskQuery, prefix: str, before: int | None) -> Select[Any]:
    # As expressions, so that the database takes the index of names and no other.
    sequence = tasks.c.sequence + 0
    conditions = [*_named(prefix)]
    if query.statuses:
        conditions.append(func.coalesce(tasks.c.status, "").in_(sorted(map(str, query.statuses))))
    if query.worker_id is not None:
        conditions.append(func.coalesce(tasks.c.worker_id, "") == query.worker_id)
    if before is not None:
        conditions.append(sequence < before)
    return select(tasks.c.sequence).where(*conditions).order_by(sequence.desc())


def _walked(query: TaskQuery, before: int | None) -> Select[Any]:
    if not (query.statuses or query.worker_id is not None or query.name_prefix):
        return _newest(query, before)
    ends = [
        select(_newest(query, before).where(tasks.c.status == status).limit(query.limit + 1).subquery().c.sequence)
        for status in sorted(map(str, query.statuses or TaskStatus))
    ]
    found = union_all(*ends).subquery()
    return select(found.c.sequence).order_by(found.c.sequence.desc())


def _newest(query: TaskQuery, before: int | None) -> Select[Any]:
    newest = select(tasks.c.sequence).order_by(tasks.c.sequence.desc())
    if query.worker_id is not None:
        newest = newest.where(tasks.c.worker_id == query.worker_id)
    if query.name_prefix:
        newest = newest.where(func.substr(tasks.c.name, 1, len(query.name_prefix)) == query.name_prefix)
    if before is not None:
        newest = newest.where(tasks.c.sequence < before)
    return newest
