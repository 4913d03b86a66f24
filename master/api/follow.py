"""Following a task as server-sent events: its log from before the container starts, and its end.

An event's id is ``<attempt>-<offset>``: the byte of the log that comes next, so a reader that comes back with the last
id that it saw misses nothing and gets nothing twice.
"""

import logging
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

import gevent

from fleetpulse.master.api.event_stream import HEARTBEAT, RETRY, event_bytes
from fleetpulse.master.api.followers import ClientIdentity, Subscribers
from fleetpulse.master.api.log_text import decoded, whole_characters
from fleetpulse.master.api.ports import TaskService, TaskWatch
from fleetpulse.master.api.presence import ClientGone, HasFile, take_no_more, while_client_is_there
from fleetpulse.master.api.problems import STATUS_BY_ERROR
from fleetpulse.master.api.task_views import newest, outcome_view
from fleetpulse.master.errors import FleetPulseError, MasterStopping
from fleetpulse.master.tasks.ports import TaskDetails
from fleetpulse.master.tasks.records import Attempt

_LOGGER = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 15.0
CHUNK_BYTES = 64 * 1024
PAUSE_SECONDS = 0.05
"""After something was sent: what comes meanwhile goes out in one piece, and a task that talks much costs little."""


class Position(NamedTuple):
    """Where to go on. Attempt 0: none has begun, so begin with the first."""

    attempt: int
    offset: int


class Subscriber:
    """One reader's events, to be iterated once, in the greenlet of its request. Raises when it is not admitted."""

    def __init__(
        self,
        tasks: TaskService,
        task_id: str,
        position: Position,
        *,
        only_this_attempt: bool,
        connection: HasFile | None,
        asker: ClientIdentity,
        followers: Subscribers,
        heartbeat_seconds: float,
    ) -> None:
        self._tasks = tasks
        self._task_id = task_id
        self._attempt, self._offset = position
        self._only_this_attempt = only_this_attempt
        self._connection = connection
        self._followers = followers
        self._heartbeat_seconds = heartbeat_seconds
        self._status: dict[str, Any] | None = None
        self._waiting: Any = None
        self._ending: FleetPulseError | None = None
        self._events = self._guarded()
        followers.admit(self, asker)

    def __iter__(self) -> Iterator[bytes]:
        return self._events

    def close(self) -> None:
        """The reader is gone, or has all. Called by the web server, whatever happened."""
        self._events.close()
        self._followers.leave(self)

    def end(self, why: FleetPulseError) -> None:
        """Have the events end with a last word, soon. Does not wait."""
        if self._ending is None:
            self._ending = why
            gevent.get_hub().loop.run_callback(self._end_wait, why)

    def _end_wait(self, why: FleetPulseError) -> None:
        if self._waiting is not None:
            self._waiting.throw(why)

    def _guarded(self) -> Generator[bytes, None, None]:
        try:
            yield from self._follow()
        except ClientGone:
            return
        except FleetPulseError as error:
            yield event_bytes("problem", {"status": STATUS_BY_ERROR.get(type(error), 500), "detail": str(error)})
            if isinstance(error, MasterStopping):
                take_no_more(self._connection)
        except Exception:
            _LOGGER.exception("a follower of %s failed", self._task_id)
            yield event_bytes("problem", {"status": 500, "detail": "the master failed on this; its log says why"})

    def _follow(self) -> Iterator[bytes]:
        yield RETRY
        with self._tasks.watch(self._task_id) as watch:
            while True:
                self._raise_if_ending()
                details = self._tasks.details(self._task_id)
                told = False
                for event in self._news(details):
                    told = True
                    yield event
                if (end := self._end(details)) is not None:
                    yield end
                    return
                if told:
                    gevent.sleep(PAUSE_SECONDS)
                if not self._wait(watch):
                    yield HEARTBEAT

    def _raise_if_ending(self) -> None:
        if self._ending is not None:
            raise self._ending

    def _wait(self, watch: TaskWatch) -> bool:
        self._raise_if_ending()
        self._waiting = gevent.getcurrent()
        try:
            with while_client_is_there(self._connection):
                return watch.wait(self._heartbeat_seconds)
        finally:
            self._waiting = None

    def _news(self, details: TaskDetails) -> Iterator[bytes]:
        """What has changed since the last time, up to what was durable when the details were read."""
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
            self._raise_if_ending()
            _, log = self._tasks.read_log(self._task_id, self._attempt, self._offset, CHUNK_BYTES)
            is_last = log.offset + len(log.data) >= log.size
            # Of a character that came in part the rest is awaited, unless nothing will come.
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
                    ended = outcome_view(attempt.status, attempt.outcome)
                    return event_bytes("end", {"attempt": attempt.attempt, **ended})
        if task.status.is_terminal:
            return event_bytes("end", {"attempt": task.attempt, **outcome_view(task.status, task.outcome)})
        return None

    def _id(self) -> str:
        return f"{self._attempt}-{self._offset}"
