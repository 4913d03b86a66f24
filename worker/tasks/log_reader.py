"""Carries what one container writes into the outbox: from a given byte, up to its limit, to the very end."""

import asyncio
import logging
from typing import NamedTuple

from fleetpulse.worker.tasks.engine import AttemptKey, ContainerEngine, EngineError, EngineUnavailable, LogStream
from fleetpulse.worker.tasks.health import PATIENCE_SECONDS, EngineHealth
from fleetpulse.worker.tasks.logs import CappedOutput
from fleetpulse.worker.tasks.outbox import Outbox
from fleetpulse.worker.tasks.waiting import happens_within

_log = logging.getLogger(__name__)

MAX_FOLLOWED = 128
"""Containers whose output is followed as it comes, a thread each; that of others is read when they have ended."""

_SILENCE_SECONDS = 2.0
"""A stream that says nothing for so long after its container's end will never end."""

_SMALL_PIECE_BYTES = 32 * 1024
_PAUSE_SECONDS = 0.02
"""Between small pieces, so that one byte at a time makes no message a byte."""

_TAIL_BYTES = 512
_AGAIN_SECONDS = 0.5


class LogContext(NamedTuple):
    """What all readers of a worker share."""

    engine: ContainerEngine
    health: EngineHealth
    outbox: Outbox
    follow_slots: asyncio.Semaphore


class LogReader:
    """Of one attempt. ``run`` once; all methods belong to one asyncio loop."""

    def __init__(self, means: LogContext, key: AttemptKey, container_id: str, limit_bytes: int) -> None:
        self._means = means
        self._key = key
        self._container_id = container_id
        self._limit_bytes = limit_bytes
        self._has_ended = asyncio.Event()
        self._fed = 0
        """Bytes of the container's output that were read, over all streams."""
        self._stream: LogStream | None = None
        self._waits_since: float | None = None
        self.tail = b""
        """The last bytes that were read."""

    def container_ended(self) -> None:
        """Nothing will be written any more: ``run`` returns when all is handed over."""
        self._has_ended.set()
        self._mind_silence()

    async def run(self, received_bytes: int) -> None:
        """The master has the first ``received_bytes``. Raises no ``EngineError``: what cannot be read is left out."""
        output = CappedOutput(self._limit_bytes, received_bytes)
        self._means.outbox.open_log(self._key, received_bytes)
        loop = asyncio.get_running_loop()
        give_up_at: float | None = None
        while not output.is_cut:
            is_last = self._has_ended.is_set()
            try:
                if is_last:
                    await self._read(output, follow=False)
                    # An engine that goes down may end an answer too early as if it were whole.
                    await self._means.engine.inspect(self._container_id)
                else:
                    await self._follow(output)
            except EngineUnavailable as error:
                self._means.health.failed(error)
                give_up_at = give_up_at or loop.time() + PATIENCE_SECONDS
                if is_last and loop.time() >= give_up_at:
                    _log.warning("attempt %s: the rest of its log is lost: %s", self._key, error)
                    break
                await asyncio.sleep(_AGAIN_SECONDS)
            except EngineError as error:
                _log.warning("attempt %s: its log cannot be read: %s", self._key, error)
                break
            else:
                give_up_at = None
                if is_last:
                    break
        await self._hand_over(output.finish())

    async def _follow(self, output: CappedOutput) -> None:
        """Until the stream ends, which it should when the container does; a whole pass follows in any case."""
        if self._means.follow_slots.locked():
            await self._has_ended.wait()
            return
        async with self._means.follow_slots:
            await self._read(output, follow=True)
        if not output.is_cut and not self._has_ended.is_set():
            # The end may not have been noticed yet; or the stream broke without a word.
            await happens_within(self._has_ended, _AGAIN_SECONDS)

    async def _read(self, output: CappedOutput, *, follow: bool) -> None:
        known = self._fed
        self._stream = self._means.engine.open_log(self._container_id, follow=follow)
        try:
            while data := await self._next(self._stream):
                new = data[known:]
                known = max(known - len(data), 0)
                self._fed += len(new)
                self.tail = (self.tail + new)[-_TAIL_BYTES:]
                await self._hand_over(output.feed(new))
                if output.is_cut:
                    return
                if follow and len(data) < _SMALL_PIECE_BYTES:
                    await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            self._stream.close()
            self._stream = None

    async def _next(self, stream: LogStream) -> bytes:
        self._waits_since = asyncio.get_running_loop().time()
        try:
            return await stream.read()
        finally:
            self._waits_since = None

    def _mind_silence(self) -> None:
        loop = asyncio.get_running_loop()
        if self._stream is None:
            return
        if self._waits_since is not None and loop.time() - self._waits_since >= _SILENCE_SECONDS:
            self._stream.close()
        else:
            loop.call_later(_SILENCE_SECONDS / 4, self._mind_silence)

    async def _hand_over(self, data: bytes) -> None:
        if data:
            await self._means.outbox.add_log(self._key, data)
