"""Messages for the master, task updates and pieces of logs: in order, kept until the master acknowledges them.

One outbox serves a worker over all its streams. ``resend`` marks everything that is not acknowledged as unsent.
"""

import asyncio
import itertools
from collections import deque

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import MAX_LOG_CHUNK_BYTES
from fleetpulse.worker.tasks.container_spec import AttemptKey

MAX_UNACKNOWLEDGED_LOG_BYTES = 1024 * 1024
"""Per attempt. ``add_log`` waits above it; the engine keeps the rest."""

TERMINAL_PHASES = frozenset({pb.ATTEMPT_PHASE_COMPLETED, pb.ATTEMPT_PHASE_FAILED, pb.ATTEMPT_PHASE_STOPPED})


class _LogBuffer:
    """The unacknowledged end of one attempt's log."""

    def __init__(self, start_bytes: int) -> None:
        self.acknowledged = self.sent = start_bytes
        self.data = bytearray()
        """From ``acknowledged`` on."""
        self.has_space = asyncio.Event()
        self.has_space.set()

    @property
    def end(self) -> int:
        return self.acknowledged + len(self.data)


class Outbox:
    """All methods belong to one asyncio loop."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._updates: dict[int, tuple[pb.TaskUpdate, asyncio.Event]] = {}
        """By number, with the event of the acknowledgement."""
        self._unsent: deque[int] = deque()
        self._logs: dict[AttemptKey, _LogBuffer] = {}
        self._pending_logs: deque[AttemptKey] = deque()
        """Logs with something to send, each once, served in turn."""
        self._has_messages = asyncio.Event()

    def add_update(self, update: pb.TaskUpdate) -> asyncio.Event:
        """Numbers and queues an update. Returns the event that is set when it is acknowledged.

        A terminal update is sent after the log of its attempt, all of which must have been added before.
        """
        update.update_number = next(self._numbers)
        if update.phase not in TERMINAL_PHASES:
            self._drop_progress(update.id)
        acknowledged = asyncio.Event()
        self._updates[update.update_number] = update, acknowledged
        self._unsent.append(update.update_number)
        self._has_messages.set()
        return acknowledged

    def open_log(self, key: AttemptKey, start_bytes: int) -> None:
        """The master has the first ``start_bytes`` of this attempt's log."""
        self._logs[key] = _LogBuffer(start_bytes)

    async def add_log(self, key: AttemptKey, data: bytes) -> None:
        """Appends to a log; waits while too much is unacknowledged. Drops the data of a forgotten attempt."""
        for begin in range(0, len(data), MAX_LOG_CHUNK_BYTES):
            log = self._logs.get(key)
            if log is not None:
                await log.has_space.wait()
            if log is None or log is not self._logs.get(key):
                return  # forgotten
            log.data += data[begin : begin + MAX_LOG_CHUNK_BYTES]
            if len(log.data) >= MAX_UNACKNOWLEDGED_LOG_BYTES:
                log.has_space.clear()
            self._schedule_log(key)

    def acknowledge_log(self, key: AttemptKey, received_bytes: int) -> None:
        """The master has this much. Ignores less than before, and more than there is."""
        log = self._logs.get(key)
        if log is None or not log.acknowledged < received_bytes <= log.end:
            return
        del log.data[: received_bytes - log.acknowledged]
        log.acknowledged = received_bytes
        log.sent = max(log.sent, received_bytes)
        if len(log.data) < MAX_UNACKNOWLEDGED_LOG_BYTES:
            log.has_space.set()

    def acknowledge_update(self, update_number: int) -> None:
        if update_number in self._updates:
            _, acknowledged = self._updates.pop(update_number)
            acknowledged.set()

    def forget(self, key: AttemptKey) -> None:
        """Sends nothing more about this attempt."""
        log = self._logs.pop(key, None)
        if log is not None:
            log.has_space.set()
        for number, (update, _) in list(self._updates.items()):
            if AttemptKey.of(update.id) == key:
                self.acknowledge_update(number)

    def resend(self) -> None:
        """For a new stream: everything that is not acknowledged is sent again."""
        self._unsent = deque(self._updates)
        self._pending_logs.clear()
        for key, log in self._logs.items():
            log.sent = log.acknowledged
            self._schedule_log(key)
        self._has_messages.set()

    async def next_message(self) -> pb.WorkerMessage:
        """Waits for the next message, which counts as sent. Cancelling loses nothing."""
        while True:
            message = self._next_update() or self._next_chunk()
            if message is not None:
                return message
            self._has_messages.clear()
            await self._has_messages.wait()

    def _next_update(self) -> pb.WorkerMessage | None:
        for _ in range(len(self._unsent)):
            number = self._unsent.popleft()
            if number not in self._updates:
                continue
            update, _ = self._updates[number]
            if update.phase in TERMINAL_PHASES and self._has_unsent_log(AttemptKey.of(update.id)):
                self._unsent.append(number)
                continue
            return pb.WorkerMessage(task_update=update)
        return None

    def _next_chunk(self) -> pb.WorkerMessage | None:
        while self._pending_logs:
            key = self._pending_logs.popleft()
            log = self._logs.get(key)
            if log is None or log.sent >= log.end:
                continue
            begin = log.sent - log.acknowledged
            data = bytes(log.data[begin : begin + MAX_LOG_CHUNK_BYTES])
            chunk = pb.LogChunk(id=key.message(), offset_bytes=log.sent, data=data)
            log.sent += len(data)
            self._schedule_log(key)
            return pb.WorkerMessage(log_chunk=chunk)
        return None

    def _schedule_log(self, key: AttemptKey) -> None:
        if self._has_unsent_log(key) and key not in self._pending_logs:
            self._pending_logs.append(key)
            self._has_messages.set()

    def _has_unsent_log(self, key: AttemptKey) -> bool:
        log = self._logs.get(key)
        return log is not None and log.sent < log.end

    def _drop_progress(self, attempt: pb.AttemptId) -> None:
        """A newer update replaces the progress of a pull."""
        for number, (update, _) in list(self._updates.items()):
            if update.id == attempt and update.phase == pb.ATTEMPT_PHASE_PREPARING and update.message:
                self.acknowledge_update(number)
