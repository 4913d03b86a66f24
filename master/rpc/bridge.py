"""From grpc's thread to the gevent hub: calls are queued by one and made by the other, in order.

Under load one wake-up of the hub brings a whole batch, so the price of crossing threads is shared by its messages.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event

_LOGGER = logging.getLogger(__name__)

BATCH_LENGTH = 64
"""Calls after which other greenlets have their turn."""


class HubBridge:
    """Made and closed on the hub; ``call`` is for any thread."""

    def __init__(self) -> None:
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._wakeup = gevent.get_hub().loop.async_()
        self._arrived = Event()
        self._wakeup.start(self._arrived.set)
        self._greenlet = gevent.spawn(self._make_calls)
        self._greenlet.name = "rpc-bridge"

    def call(self, function: Callable[..., None], *args: Any) -> None:
        """Have ``function(*args)`` called on the hub, after everything that this thread asked for before."""
        self._calls.append((function, args))
        # Sending again before the hub woke is cheap: the loop folds it into one wake-up.
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
