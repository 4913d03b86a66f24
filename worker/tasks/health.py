"""Whether the engine answers, and the patience with one that does not: a short outage says nothing about containers."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.tasks.engine import EngineUnavailable
from fleetpulse.worker.tasks.waiting import happens_within

_log = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE_SECONDS = 180.0
"""An engine that is silent for so long has an attempt fail."""

_FIRST_DELAY_SECONDS = 0.25
_LAST_DELAY_SECONDS = 5.0


class EngineHealth:
    """All methods belong to one asyncio loop."""

    def __init__(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._patience_seconds = patience_seconds
        self._trouble: str | None = "the Docker Engine has not been asked yet"
        self._has_said = self._has_answered = False
        self._answers = asyncio.Event()
        self._silent_since = time.monotonic()
        self.failures = 0
        """How often it did not answer."""

    @property
    def support(self) -> pb.TaskSupport:
        """What the master is told."""
        return pb.TaskSupport(available=self._trouble is None, reason=self._trouble or "")

    @property
    def is_given_up(self) -> bool:
        """Whether it has been silent for so long that nobody should wait for it any more."""
        return self._trouble is not None and time.monotonic() - self._silent_since >= self._patience_seconds

    def answered(self) -> None:
        """It did."""
        if self._trouble is not None:
            _log.info("the container engine answers: tasks can run here")
        self._trouble, self._has_said, self._has_answered = None, False, True
        self._answers.set()

    def failed(self, error: EngineUnavailable) -> None:
        """It did not."""
        self.failures += 1
        if self._trouble is None:
            self._silent_since = time.monotonic()
        if not self._has_said:
            # A machine may well have no engine at all: that is worth a line, and no warning.
            level = logging.WARNING if self._has_answered else logging.INFO
            _log.log(level, "no tasks can run here for now: %s", error)
        self._trouble, self._has_said = str(error), True
        self._answers.clear()

    async def persist(self, call: Callable[[], Awaitable[T]], *, for_ever: bool = False) -> T:
        """What the call gives; one that finds no engine is made again. Raises its ``EngineUnavailable`` in the end."""
        give_up_at = None if for_ever else time.monotonic() + self._patience_seconds
        delay = _FIRST_DELAY_SECONDS
        while True:
            try:
                result = await call()
            except EngineUnavailable as error:
                self.failed(error)
                if give_up_at is not None and time.monotonic() >= give_up_at:
                    raise
            else:
                self.answered()
                return result
            await happens_within(self._answers, delay)
            delay = min(2 * delay, _LAST_DELAY_SECONDS)
