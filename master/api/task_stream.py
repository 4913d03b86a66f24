"""A task as server-sent events: its status, its log from before the container starts, and its end.

An event's id is ``<attempt>-<offset>``: the byte of the log that comes next, so a reader that comes back with the last
id that it saw misses nothing and gets nothing twice.
"""

import codecs
from collections.abc import Iterator
from typing import Any, NamedTuple

import falcon
import gevent

from fleetpulse.master.api.subscribers import KEEPALIVE_SECONDS, EventStream, Subscribers, event_bytes
from fleetpulse.master.api.task_answers import Ended, newest
from fleetpulse.master.tasks.records import Attempt, TaskDetails
from fleetpulse.master.tasks.service import TaskService

CHUNK_BYTES = 64 * 1024
PAUSE_SECONDS = 0.05
"""After something was sent: what comes meanwhile goes out in one piece, so a task that logs much costs little."""


class Position(NamedTuple):
    """Where to go on. Attempt 0: none has begun, so begin with the first."""

    attempt: int
    offset: int


class TaskStream(EventStream):
    """One reader's events. The subscribers may refuse the reader: see ``EventStream``."""

    def __init__(
        self,
        tasks: TaskService,
        task_id: str,
        position: Position,
        req: falcon.Request,
        subscribers: Subscribers,
        keepalive_seconds: float = KEEPALIVE_SECONDS,
        *,
        only_this_attempt: bool,
    ) -> None:
        super().__init__(f"the stream of {task_id}", req, subscribers, keepalive_seconds)
        self._tasks, self._task_id = tasks, task_id
        self._attempt, self._offset = position
        self._only_this_attempt = only_this_attempt
        self._status: dict[str, Any] | None = None

    def _events(self) -> Iterator[bytes]:
        with self._tasks.watch(self._task_id) as watch:
            while True:
                self._raise_if_revoked()
                details = self._tasks.details(self._task_id)
                sent = False
                for event in self._changes(details):
                    sent = True
                    yield event
                if (end := self._end(details)) is not None:
                    yield end
                    return
                if sent:
                    gevent.sleep(PAUSE_SECONDS)
                yield from self._wait(watch.wait)

    def _changes(self, details: TaskDetails) -> Iterator[bytes]:
        """Yields what has changed since the last call, up to what was durable when the details were read."""
        yield from self._status_change(details)
        attempts = {attempt.attempt: attempt for attempt in details.attempts}
        if self._attempt == 0 and attempts:
            self._attempt = min(attempts)
            yield self._attempt_began(attempts[self._attempt])
        while (attempt := attempts.get(self._attempt)) is not None:
            yield from self._log(has_ended=attempt.status.is_terminal)
            following = attempts.get(self._attempt + 1)
            if following is None or self._only_this_attempt:
                return
            self._attempt, self._offset = following.attempt, 0
            yield self._attempt_began(following)

    def _log(self, *, has_ended: bool) -> Iterator[bytes]:
        while True:
            self._raise_if_revoked()
            _, log = self._tasks.read_log(self._task_id, self._attempt, self._offset, CHUNK_BYTES)
            is_last = log.offset + len(log.data) >= log.size
            # The rest of a character that came in part is awaited, unless nothing will come.
            text = log.data if has_ended and is_last else log.data[: whole_characters(log.data)]
            if text:
                offset, self._offset = self._offset, self._offset + len(text)
                body = {"attempt": self._attempt, "offset": offset, "next_offset": self._offset, "logs": decoded(text)}
                yield event_bytes(None, body, self._id())
            if is_last or not text:
                return

    def _status_change(self, details: TaskDetails) -> Iterator[bytes]:
        task, attempt = details.task, newest(details.attempts)
        status = {
            "status": task.status,
            "attempt": task.attempt,
            "worker_id": None if attempt is None or attempt.status.is_terminal else attempt.worker_id,
            "queue_reason": self._tasks.queue_reason(task),
        }
        if status != self._status:
            self._status = status
            yield event_bytes("status", status)

    def _attempt_began(self, attempt: Attempt) -> bytes:
        return event_bytes("attempt", {"attempt": attempt.attempt, "worker_id": attempt.worker_id}, self._id())

    def _end(self, details: TaskDetails) -> bytes | None:
        task = details.task
        if self._only_this_attempt:
            for attempt in details.attempts:
                if attempt.attempt == self._attempt and attempt.status.is_terminal:
                    return event_bytes("end", Ended.of(attempt.attempt, attempt.status, attempt.outcome))
        if task.status.is_terminal:
            return event_bytes("end", Ended.of(task.attempt, task.status, task.outcome))
        return None

    def _id(self) -> str:
        return f"{self._attempt}-{self._offset}"


def whole_characters(data: bytes) -> int:
    """Returns how many of the bytes are whole UTF-8 characters, without one that goes on after the end."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data[-4:])  # no character is longer
    return len(data) - len(decoder.getstate()[0])


def decoded(data: bytes) -> str:
    """Returns the text; what is not UTF-8 becomes U+FFFD."""
    return data.decode("utf-8", "replace")
