"""``/api/tasks/{task_id}/logs``: a part of a log as JSON or as it is, or the task as server-sent events."""

from collections.abc import Iterator
from typing import NamedTuple

import falcon

from fleetpulse.master.api.answers import PRIVATE, send_json
from fleetpulse.master.api.queries import MAX_LOG_BYTES, LogQuery, check_task_id, last_event_id, log_query_of
from fleetpulse.master.api.subscribers import KEEPALIVE_SECONDS, Subscribers, begin_events
from fleetpulse.master.api.task_answers import LogPart
from fleetpulse.master.api.task_stream import Position, TaskStream, decoded, whole_characters
from fleetpulse.master.tasks.records import TaskDetails
from fleetpulse.master.tasks.service import TaskService

SLICE_BYTES = 256 * 1024


class _Part(NamedTuple):
    """Bytes ``offset`` to ``offset + len(data)`` of an attempt's log of ``size`` bytes."""

    attempt: int
    offset: int
    data: bytes
    size: int
    has_ended: bool
    """Nothing will be added to the log."""

    @property
    def next_offset(self) -> int:
        return self.offset + len(self.data)


class TaskLogs:
    """The resource. It reads what is durable."""

    def __init__(
        self, tasks: TaskService, subscribers: Subscribers, keepalive_seconds: float = KEEPALIVE_SECONDS
    ) -> None:
        self._tasks, self._subscribers, self._keepalive_seconds = tasks, subscribers, keepalive_seconds

    def on_get(self, req: falcon.Request, resp: falcon.Response, task_id: str) -> None:
        query = log_query_of(req)
        last_event_id(req)  # checked, though only the events need it
        check_task_id(task_id)
        resp.set_header("X-Content-Type-Options", "nosniff")
        resp.append_header("Vary", "Accept")
        preferred = req.client_prefers((falcon.MEDIA_JSON, falcon.MEDIA_TEXT))
        if query.follow:
            self._follow(req, resp, task_id, query)
        elif query.format == "text" or (query.format is None and preferred == falcon.MEDIA_TEXT):
            self._text(resp, task_id, query)
        else:
            self._json(resp, task_id, query)

    on_head = on_get

    def _json(self, resp: falcon.Response, task_id: str, query: LogQuery) -> None:
        part = self._part(task_id, query)
        is_last = part.next_offset >= part.size
        kept = len(part.data) if is_last and part.has_ended else whole_characters(part.data)
        if kept or is_last:  # else the limit is less than one character
            part = part._replace(data=part.data[:kept])
        send_json(
            resp,
            LogPart(
                task_id=task_id,
                attempt=part.attempt,
                offset=part.offset,
                next_offset=part.next_offset,
                size=part.size,
                complete=part.has_ended and part.next_offset >= part.size,
                logs=decoded(part.data),
            ),
        )

    def _text(self, resp: falcon.Response, task_id: str, query: LogQuery) -> None:
        """The bytes as they are, to the present end unless there is a limit."""
        part = self._part(task_id, query)
        end = part.next_offset if query.limit is not None else max(part.size, part.next_offset)
        resp.cache_control = (PRIVATE,)
        resp.content_type = "text/plain; charset=utf-8"
        for name, value in (
            ("Attempt", part.attempt),
            ("Offset", part.offset),
            ("Next-Offset", end),
            ("Size", part.size),
            ("Complete", "true" if part.has_ended and end >= part.size else "false"),
        ):
            resp.set_header(f"X-Log-{name}", str(value))
        if end == part.next_offset:
            resp.data = part.data
        else:
            resp.content_length = end - part.offset
            resp.stream = self._slices(task_id, part, end)

    def _slices(self, task_id: str, first: _Part, end: int) -> Iterator[bytes]:
        """Yields the log in pieces, so that a long one is never in memory as a whole."""
        yield first.data
        offset = first.next_offset
        while offset < end:
            _, log = self._tasks.read_log(task_id, first.attempt, offset, min(SLICE_BYTES, end - offset))
            if not log.data:
                return
            yield log.data
            offset += len(log.data)

    def _part(self, task_id: str, query: LogQuery) -> _Part:
        # The details first: what ended by then has all of its log in the store.
        details = self._tasks.details(task_id)
        limit = query.limit or MAX_LOG_BYTES
        offset = query.offset or 0
        if query.tail is not None:
            offset = -limit
        number = _attempt_of(details, query)
        _, log = self._tasks.read_log(task_id, number, offset, limit)
        part = _Part(number, log.offset, log.data, log.size, _has_ended(details, number))
        cut = last_lines(part.data, query.tail) if query.tail is not None else 0
        if offset < 0 < part.offset and cut == 0:
            cut = torn_bytes(part.data)
        return part._replace(offset=part.offset + cut, data=part.data[cut:])

    def _follow(self, req: falcon.Request, resp: falcon.Response, task_id: str, query: LogQuery) -> None:
        position = self._position(req, task_id, query)
        begin_events(resp)
        if req.method == "HEAD":
            return
        resp.stream = TaskStream(
            self._tasks,
            task_id,
            position,
            req,
            self._subscribers,
            self._keepalive_seconds,
            only_this_attempt=query.attempt is not None,
        )

    def _position(self, req: falcon.Request, task_id: str, query: LogQuery) -> Position:
        """Returns where to begin. Reads the log, so that a missing one is a 404 or a 410 before any event."""
        details = self._tasks.details(task_id)
        number, offset = details.task.attempt if query.attempt is None else query.attempt, query.offset or 0
        seen = last_event_id(req)
        # A browser comes back with the query that it began with, so the last event counts, not the offset.
        if seen is not None and query.attempt in {None, seen[0]}:
            number, offset = seen
        elif number == 0 or number > details.task.attempt:
            return Position(number, max(offset, 0))
        elif query.tail is not None or offset < 0:
            return Position(number, self._part(task_id, query).offset)
        self._tasks.read_log(task_id, number, offset, 1)
        return Position(number, offset)


def _attempt_of(details: TaskDetails, query: LogQuery) -> int:
    if query.attempt is None or query.attempt in {attempt.attempt for attempt in details.attempts}:
        return query.attempt or details.task.attempt
    detail = f"task {details.task.task_id} has had {details.task.attempt} attempts, and no attempt {query.attempt}"
    raise falcon.HTTPNotFound(description=detail)


def _has_ended(details: TaskDetails, number: int) -> bool:
    statuses = (attempt.status for attempt in details.attempts if attempt.attempt == number)
    return next(statuses, details.task.status).is_terminal


def torn_bytes(data: bytes) -> int:
    """Returns how many bytes at the start belong to a character that began before."""
    torn = 0
    while torn < min(3, len(data)) and data[torn] & 0b1100_0000 == 0b1000_0000:
        torn += 1
    return torn


def last_lines(data: bytes, lines: int) -> int:
    """Returns where the last so many lines begin. The last one need not have ended."""
    start = len(data) - 1 if data.endswith(b"\n") else len(data)
    for _ in range(lines):
        start = data.rfind(b"\n", 0, start)
        if start < 0:
            return 0
    return start + 1
