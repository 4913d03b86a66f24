"""Copies the output of one container into the outbox: from a given byte, up to its limit, to the end."""

import asyncio
import logging

from fleetpulse.worker.tasks.container_spec import AttemptKey
from fleetpulse.worker.tasks.engine import (
    ENGINE_TIMEOUT_SECONDS,
    EngineClient,
    EngineError,
    EngineUnavailable,
    LogStream,
    wait_for_event,
)
from fleetpulse.worker.tasks.outbox import Outbox

_log = logging.getLogger(__name__)

MAX_FOLLOWED = 128
"""Containers whose output is followed, each with a thread; the output of others is read after their end."""

_IDLE_SECONDS = 2.0
"""A stream that gives nothing for so long after its container's end is closed: it may never end by itself."""

_SMALL_READ_BYTES = 32 * 1024
_PAUSE_SECONDS = 0.02
"""After a small read, so that a container that writes single bytes does not make a message of each."""

_TAIL_BYTES = 512
_RETRY_SECONDS = 0.5


def truncation_mark(limit_bytes: int) -> bytes:
    """Ends a log that was truncated."""
    return f"\n[fleetpulse: output is cut here, {limit_bytes} bytes are kept]\n".encode()


class LogLimiter:
    """Passes the beginning of an output up to a limit, which includes the mark of a truncation.

    The result depends only on the bytes, not on how they were split. A reader that starts again, after a restart or a
    broken stream, gets the same bytes, without the first ``skip_bytes``.
    """

    def __init__(self, limit_bytes: int, skip_bytes: int = 0) -> None:
        self._limit = limit_bytes
        self._mark = truncation_mark(limit_bytes)[:limit_bytes]
        self._skip = skip_bytes
        self._passed = 0
        self._held = b""
        self.is_truncated = False
        """Nothing more passes."""

    def feed(self, data: bytes) -> bytes:
        """Returns what passes. Holds back bytes that the mark may have to replace."""
        if self.is_truncated:
            return b""
        data = self._held + data
        safe = max(self._limit - len(self._mark) - self._passed, 0)
        if self._passed + len(data) > self._limit:
            self.is_truncated = True
            self._held = b""
            return self._pass(data[:safe] + self._mark)
        self._held = data[safe:]
        return self._pass(data[:safe])

    def finish(self) -> bytes:
        """Returns what was held back, at the end of the output."""
        held, self._held = self._held, b""
        return self._pass(held)

    def _pass(self, data: bytes) -> bytes:
        self._passed += len(data)
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        return data[skipped:]


class LogReader:
    """Reads the log of one attempt. ``run`` once; all methods belong to one asyncio loop."""

    def __init__(
        self,
        client: EngineClient,
        outbox: Outbox,
        follow_slots: asyncio.Semaphore,
        key: AttemptKey,
        container_id: str,
        limit_bytes: int,
    ) -> None:
        """The readers of a worker share ``follow_slots``, of ``MAX_FOLLOWED``."""
        self._client, self._outbox = client, outbox
        self._follow_slots = follow_slots
        self._key, self._container_id = key, container_id
        self._limit_bytes = limit_bytes
        self._container_ended = asyncio.Event()
        self._read_bytes = 0
        """Of the container's output, over all streams."""
        self._stream: LogStream | None = None
        self._waiting_since: float | None = None
        self.tail = b""
        """The last few hundred bytes."""

    def container_ended(self) -> None:
        """The container writes nothing more: ``run`` returns when everything is in the outbox."""
        self._container_ended.set()
        self._close_when_idle()

    async def run(self, received: "asyncio.Future[int]") -> None:
        """``received``: how many bytes the master has. Raises no ``EngineError``: what cannot be read is left out."""
        received_bytes = await received
        limiter = LogLimiter(self._limit_bytes, received_bytes)
        self._outbox.open_log(self._key, received_bytes)
        loop = asyncio.get_running_loop()
        give_up_at: float | None = None
        while not limiter.is_truncated:
            is_last = self._container_ended.is_set()
            try:
                if is_last:
                    await self._read(limiter, follow=False)
                    # An engine that shuts down may end an answer early as if it were complete.
                    await self._client.engine.inspect(self._container_id)
                else:
                    await self._follow(limiter)
            except EngineUnavailable as error:
                self._client.record_failure(error)
                give_up_at = give_up_at or loop.time() + ENGINE_TIMEOUT_SECONDS
                if is_last and loop.time() >= give_up_at:
                    _log.warning("attempt %s: the rest of its log is lost: %s", self._key, error)
                    break
                await asyncio.sleep(_RETRY_SECONDS)
            except EngineError as error:
                _log.warning("attempt %s: its log cannot be read: %s", self._key, error)
                break
            else:
                give_up_at = None
                if is_last:
                    break
        await self._outbox.add_log(self._key, limiter.finish())

    async def _follow(self, limiter: LogLimiter) -> None:
        """Reads until the stream ends; a full read follows in any case."""
        if self._follow_slots.locked():
            await self._container_ended.wait()
            return
        async with self._follow_slots:
            await self._read(limiter, follow=True)
        if not limiter.is_truncated:
            # The container's end may not have been noticed yet, or the stream broke silently.
            await wait_for_event(self._container_ended, _RETRY_SECONDS)

    async def _read(self, limiter: LogLimiter, *, follow: bool) -> None:
        known = self._read_bytes
        stream = self._stream = self._client.engine.open_log(self._container_id, follow=follow)
        try:
            while data := await self._next(stream):
                new = data[known:]
                known = max(known - len(data), 0)
                self._read_bytes += len(new)
                self.tail = (self.tail + new)[-_TAIL_BYTES:]
                await self._outbox.add_log(self._key, limiter.feed(new))
                if limiter.is_truncated:
                    return
                if follow and len(data) < _SMALL_READ_BYTES:
                    await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            stream.close()
            self._stream = None

    async def _next(self, stream: LogStream) -> bytes:
        self._waiting_since = asyncio.get_running_loop().time()
        try:
            return await stream.read()
        finally:
            self._waiting_since = None

    def _close_when_idle(self) -> None:
        loop = asyncio.get_running_loop()
        if self._stream is None:
            return
        if self._waiting_since is not None and loop.time() - self._waiting_since >= _IDLE_SECONDS:
            self._stream.close()
        else:
            loop.call_later(_IDLE_SECONDS / 4, self._close_when_idle)
