"""From grpc's thread to the gevent hub: calls are queued by one and made by the other, in order.

Work that is done for one message between others costs up to three times what it costs in a row, because it has left
the processor's caches since the last time, and the hub must be woken for it. So what can wait some milliseconds is
gathered.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event

_LOGGER = logging.getLogger(__name__)

BATCH_LENGTH = 16
"""Calls after which other greenlets have their turn."""

GATHER_SECONDS = 0.01
"""How long a call that can wait does wait for others."""


class HubBridge:
    """Made and closed on the hub, for the thread in which ``loop`` runs."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._wakes_soon = False
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._wakeup = gevent.get_hub().loop.async_()
        self._arrived = Event()
        self._wakeup.start(self._arrived.set)
        self._greenlet = gevent.spawn(self._make_calls)
        self._greenlet.name = "rpc-bridge"

    def call(self, function: Callable[..., None], *args: Any) -> None:
        """Have ``function(*args)`` called on the hub, after everything that was asked for before."""
        self._calls.append((function, args))
        # Sending again before the hub woke is cheap: the loop folds it into one wake-up.
        self._wakeup.send()

    def call_soon(self, function: Callable[..., None], *args: Any) -> None:
        """The same, but the hub need not wake up for this call alone. In the loop's thread only."""
        self._calls.append((function, args))
        if not self._wakes_soon:
            self._wakes_soon = True
            self._loop.call_later(GATHER_SECONDS, self._wake)

    def _wake(self) -> None:
        self._wakes_soon = False
        self._wakeup.send()

    def close(self) -> None:
        """Make no more calls."""
        self._greenlet.kill()
        self._wakeup.stop()
        self._wakeup.close()

    def _make_calls(self) -> None:
        while True:
            self._arrived.wait()
            self._arrived.clear()
            made = 0
            while self._calls:
                function, args = self._calls.popleft()
                try:
                    function(*args)
                except Exception:
                    _LOGGER.exception("a call from grpc's thread failed")
                made += 1
                if made % BATCH_LENGTH == 0:
                    gevent.sleep(0)
