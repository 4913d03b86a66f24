"""Which tasks are on a page, newest first, at the price of the page and not of the table.

A page without a name prefix is the end of one range of an index for each status. With one there are two ways: to look
at all tasks of those names and sort them, good when they are few, or to walk from the newest task and leave out what
has another name, good when they are many. Either way only indices are read.
"""

import base64
import binascii
import struct
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, func, literal, select, union_all

from fleetpulse.master.errors import InvalidCursor
from fleetpulse.master.store.tables import tasks
from fleetpulse.master.tasks.ports import TaskQuery
from fleetpulse.master.tasks.records import TaskStatus

FEW_NAMES = 10_000
"""Tasks that are sorted for a page rather than walked past."""

_CURSOR = struct.Struct(">qI")
_LAST_CODE_POINT = 0x10FFFF


class Page(NamedTuple):
    """``sequences`` of its tasks, newest first."""

    sequences: Sequence[int]
    next_cursor: str | None


def find_page(connection: Connection, query: TaskQuery, few_names: int = FEW_NAMES) -> Page:
    """Raise ``InvalidCursor``."""
    before = None if query.cursor is None else _sequence_of(query.cursor)
    if query.name_prefix and _are_few(connection, query.name_prefix, few_names):
        chosen = _sorted(query, query.name_prefix, before)
    else:
        chosen = _walked(query, before)
    sequences = connection.scalars(chosen.limit(query.limit + 1)).all()
    if len(sequences) <= query.limit:
        return Page(sequences, None)
    return Page(sequences[: query.limit], _cursor_of(sequences[query.limit - 1]))


def name_range(prefix: str) -> tuple[str, str | None]:
    """The first name with a prefix, and the first one after all of them, in the order of their bytes."""
    for length in range(len(prefix), 0, -1):
        following = ord(prefix[length - 1]) + 1
        if following == 0xD800:  # the half pairs of UTF-16 are no characters
            following = 0xE000
        if following <= _LAST_CODE_POINT:
            return prefix, prefix[: length - 1] + chr(following)
    return prefix, None


def _cursor_of(sequence: int) -> str:
    check = zlib.crc32(struct.pack(">q", sequence))
    return base64.urlsafe_b64encode(_CURSOR.pack(sequence, check)).decode()


def _sequence_of(cursor: str) -> int:
    try:
        packed = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
        sequence, _ = _CURSOR.unpack(packed)
    except (ValueError, binascii.Error, struct.error):
        sequence = -1
    if not isinstance(sequence, int) or sequence < 0 or _cursor_of(sequence) != cursor:
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
        conditions.append(func.coalesce(tasks.c.status, "").in_(_values(query.statuses)))
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
        for status in _values(query.statuses or frozenset(TaskStatus))
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


def _values(statuses: frozenset[TaskStatus]) -> Sequence[str]:
    return sorted(str(status) for status in statuses)
