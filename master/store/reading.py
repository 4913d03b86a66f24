"""What is asked of the store, each in one transaction that sees one state. Called by the readers' threads."""

from collections.abc import Mapping, Sequence

from sqlalchemy import BigInteger, Connection, and_, func, literal, select

from fleetpulse.master.errors import UnknownTask
from fleetpulse.master.store import rows
from fleetpulse.master.store.logs import log_size, read_slice
from fleetpulse.master.store.paging import find_page
from fleetpulse.master.store.sealing import Encryptor
from fleetpulse.master.store.tables import attempts, events, tasks, workers
from fleetpulse.master.tasks.ports import LiveTask, LogSlice, TaskDetails, TaskPage, TaskQuery
from fleetpulse.master.tasks.records import Attempt, Drain, Task, TaskEvent, TaskStatus

_TASK_WIDTH = len(rows.TASK_COLUMNS)
_NEWEST = and_(attempts.c.task_id == tasks.c.task_id, attempts.c.attempt == tasks.c.attempt)
_LIVE = [str(status) for status in TaskStatus if not status.is_terminal]


def load_live(connection: Connection, seal: Encryptor) -> Sequence[LiveTask]:
    """With environments as they will be run. An attempt that has ended is not in it: a task that waits to be tried
    again has none."""
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
        task = rows.with_env(rows.task_from(row[:_TASK_WIDTH]), row[-1], seal)
        found.append(LiveTask(task, attempt, received))
    return found


def count_by_status(connection: Connection) -> Mapping[TaskStatus, int]:
    counted = connection.execute(select(tasks.c.status, func.count()).group_by(tasks.c.status))
    return dict.fromkeys(TaskStatus, 0) | {TaskStatus(status): count for status, count in counted}


def find(connection: Connection, query: TaskQuery) -> TaskPage:
    page = find_page(connection, query)
    found = connection.execute(
        select(*rows.TASK_COLUMNS, *rows.ATTEMPT_COLUMNS)
        .select_from(tasks.outerjoin(attempts, _NEWEST))
        .where(tasks.c.sequence.in_(page.sequences))
        .order_by(tasks.c.sequence.desc())
    ).all()
    newest = (rows.attempt_from(row[_TASK_WIDTH:]) for row in found)
    return TaskPage(
        tasks=[rows.task_from(row[:_TASK_WIDTH]) for row in found],
        attempts={attempt.task_id: attempt for attempt in newest if attempt is not None},
        next_cursor=page.next_cursor,
    )


def details(connection: Connection, task_id: str) -> TaskDetails:
    row = connection.execute(select(*rows.TASK_COLUMNS).where(tasks.c.task_id == task_id)).first()
    if row is None:
        raise UnknownTask(task_id)
    tried = connection.execute(
        select(*rows.ATTEMPT_COLUMNS).where(attempts.c.task_id == task_id).order_by(attempts.c.attempt)
    )
    told = connection.execute(
        select(*rows.EVENT_COLUMNS).where(events.c.task_id == task_id).order_by(events.c.event_id)
    )
    return TaskDetails(
        rows.task_from(row),
        [attempt for attempt in map(rows.attempt_from, tried) if attempt is not None],
        [TaskEvent(*event) for event in told],
    )


def assigned_to(connection: Connection, task_id: str, attempt: int) -> str | None:
    """Whose an attempt is or was; ``None`` when there is none."""
    # As a worker may say it, the number is no INTEGER of PostgreSQL's.
    number = literal(attempt, BigInteger)
    return connection.scalar(
        select(attempts.c.worker_id).where(attempts.c.task_id == task_id, attempts.c.attempt == number)
    )


def worker_attempts(connection: Connection, worker_id: str, limit: int) -> Sequence[tuple[Attempt, Task]]:
    found = connection.execute(
        select(*rows.TASK_COLUMNS, *rows.ATTEMPT_COLUMNS)
        .join_from(attempts, tasks, attempts.c.task_id == tasks.c.task_id)
        .where(attempts.c.worker_id == worker_id)
        .order_by(attempts.c.assigned_at.desc(), tasks.c.sequence.desc(), attempts.c.attempt.desc())
        .limit(limit)
    )
    pairs = ((rows.attempt_from(row[_TASK_WIDTH:]), rows.task_from(row[:_TASK_WIDTH])) for row in found)
    return [(attempt, task) for attempt, task in pairs if attempt is not None]


def read_log(connection: Connection, task_id: str, attempt: int, offset: int, limit: int) -> LogSlice:
    if connection.scalar(select(literal(1)).where(tasks.c.task_id == task_id)) is None:
        raise UnknownTask(task_id)
    return read_slice(connection, task_id, attempt, offset, limit)


def drains(connection: Connection) -> Sequence[Drain]:
    drained = select(workers.c.worker_id, workers.c.drain_reason, workers.c.drained_since)
    found = connection.execute(drained.where(workers.c.drained_since.is_not(None)).order_by(workers.c.worker_id))
    return [Drain(*row) for row in found]


def knows_worker(connection: Connection, worker_id: str) -> bool:
    return connection.scalar(select(literal(1)).where(workers.c.worker_id == worker_id)) is not None


def last_event_id(connection: Connection) -> int:
    return connection.scalar(select(func.max(events.c.event_id))) or 0
