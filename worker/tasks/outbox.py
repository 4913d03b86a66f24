"""What the master must get: updates and pieces of logs, in order, kept until it says that they are durable.

Made for one worker and all its streams. ``rewind``, at each new one, has everything sent again that is not
acknowledged.
"""

import asyncio
import itertools
from collections import deque

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import MAX_LOG_CHUNK_BYTES
from fleetpulse.worker.tasks.engine import AttemptKey

MAX_UNACKNOWLEDGED_LOG_BYTES = 1024 * 1024
"""Of one attempt. Who has more waits; the engine keeps the rest."""

TERMINAL = frozenset({pb.ATTEMPT_PHASE_COMPLETED, pb.ATTEMPT_PHASE_FAILED, pb.ATTEMPT_PHASE_STOPPED})


class _Log:
    """The unacknowledged end of one attempt's log."""

    def __init__(self, start_bytes: int) -> None:
        self.acknowledged = self.sent = start_bytes
        self.data = bytearray()
        """From ``acknowledged`` on."""
        self.has_room = asyncio.Event()
        self.has_room.set()

    @property
    def end(self) -> int:
        return self.acknowledged + len(self.data)


class Outbox:
    """All methods belong to one asyncio loop."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._updates: dict[int, pb.TaskUpdate] = {}
        self._acknowledged: dict[int, asyncio.Event] = {}
        self._unsent: deque[int] = deque()
        self._logs: dict[AttemptKey, _Log] = {}
        self._talking: deque[AttemptKey] = deque()
        """Those with something to send, each once, so that a chatty one does not keep others waiting."""
        self._something = asyncio.Event()

    def update(self, update: pb.TaskUpdate) -> asyncio.Event:
        """Number an update and have it sent; the event is set when it is acknowledged. A terminal one waits until the
        log of its attempt, all of which must have been added before, has been sent."""
        update.update_number = next(self._numbers)
        if update.phase not in TERMINAL:
            self._drop_progress(update.id)
        self._updates[update.update_number] = update
        acknowledged = self._acknowledged[update.update_number] = asyncio.Event()
        self._unsent.append(update.update_number)
        self._something.set()
        return acknowledged

    def open_log(self, key: AttemptKey, start_bytes: int) -> None:
        """The master has the first ``start_bytes`` of this attempt's log."""
        self._logs[key] = _Log(start_bytes)

    async def add_log(self, key: AttemptKey, data: bytes) -> None:
        """Append to a log; waits while too much of it is unacknowledged. Of one that is forgotten nothing is kept."""
        for begin in range(0, len(data), MAX_LOG_CHUNK_BYTES):
            log = self._logs.get(key)
            if log is not None:
                await log.has_room.wait()
            if log is None or log is not self._logs.get(key):
                return  # forgotten
            log.data += data[begin : begin + MAX_LOG_CHUNK_BYTES]
            if len(log.data) >= MAX_UNACKNOWLEDGED_LOG_BYTES:
                log.has_room.clear()
            self._talk(key)

    def log_received(self, key: AttemptKey, received_bytes: int) -> None:
        """The master has this much. Less than it had before is not believed, and more than there is neither."""
        log = self._logs.get(key)
        if log is None or not log.acknowledged < received_bytes <= log.end:
            return
        del log.data[: received_bytes - log.acknowledged]
        log.acknowledged = received_bytes
        log.sent = max(log.sent, received_bytes)
        if len(log.data) < MAX_UNACKNOWLEDGED_LOG_BYTES:
            log.has_room.set()

    def acknowledge(self, update_number: int) -> None:
        """The master has this update."""
        self._updates.pop(update_number, None)
        event = self._acknowledged.pop(update_number, None)
        if event is not None:
            event.set()

    def forget(self, key: AttemptKey) -> None:
        """Nothing of this attempt is sent any more."""
        log = self._logs.pop(key, None)
        if log is not None:
            log.has_room.set()
        for number in [number for number, update in self._updates.items() if AttemptKey.of(update.id) == key]:
            self.acknowledge(number)

    def rewind(self) -> None:
        """A new stream: nothing that is not acknowledged counts as sent."""
        self._unsent = deque(self._updates)
        self._talking.clear()
        for key, log in self._logs.items():
            log.sent = log.acknowledged
            self._talk(key)
        self._something.set()

    async def next_message(self) -> pb.WorkerMessage:
        """Wait for the next message to send; it counts as sent. Cancelling it loses nothing."""
        while True:
            message = self._next_update() or self._next_chunk()
            if message is not None:
                return message
            self._something.clear()
            await self._something.wait()

    def _next_update(self) -> pb.WorkerMessage | None:
        for _ in range(len(self._unsent)):
            number = self._unsent.popleft()
            update = self._updates.get(number)
            if update is None:
                continue
            if update.phase in TERMINAL and self._has_unsent_log(AttemptKey.of(update.id)):
                self._unsent.append(number)
                continue
            return pb.WorkerMessage(task_update=update)
        return None

    def _next_chunk(self) -> pb.WorkerMessage | None:
        while self._talking:
            key = self._talking.popleft()
            log = self._logs.get(key)
            if log is None or log.sent >= log.end:
                continue
            begin = log.sent - log.acknowledged
            data = bytes(log.data[begin : begin + MAX_LOG_CHUNK_BYTES])
            chunk = pb.LogChunk(id=key.message(), offset_bytes=log.sent, data=data)
            log.sent += len(data)
            self._talk(key)
            return pb.WorkerMessage(log_chunk=chunk)
        return None

    def _talk(self, key: AttemptKey) -> None:
        log = self._logs[key]
        if log.sent < log.end and key not in self._talking:
            self._talking.append(key)
            self._something.set()

    def _has_unsent_log(self, key: AttemptKey) -> bool:
        log = self._logs.get(key)
        return log is not None and log.sent < log.end

    def _drop_progress(self, attempt: pb.AttemptId) -> None:
        """Older news of a pull is no news."""
        for number, update in list(self._updates.items()):
            if update.id == attempt and update.phase == pb.ATTEMPT_PHASE_PREPARING and update.message:
                self.acknowledge(number)
