"""An asyncio loop on a clock that only tests advance."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any


class ManualLoop(asyncio.SelectorEventLoop):
    """Runs its timers and nothing else. ``now`` is monotonic, in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self._timers: list[tuple[float, Callable[..., object]]] = []

    def call_later(  # type: ignore[override]  # no timer is cancelled
        self, delay: float, callback: Callable[..., object], *args: Any, **_options: Any
    ) -> None:
        self._timers.append((self.now + delay, partial(callback, *args)))

    def advance(self, seconds: float) -> None:
        """Runs timers in the order of their times, those that are late at once."""
        ends_at = self.now + seconds
        while due := [timer for timer in self._timers if timer[0] <= ends_at]:
            timer = min(due, key=lambda timer: timer[0])
            self._timers.remove(timer)
            self.now = max(self.now, timer[0])
            timer[1]()
        self.now = ends_at
