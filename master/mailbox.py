"""From native threads to the gevent hub: what is put in by one is called by the other, in order.

All that waits when the hub wakes costs one wake-up. Shared by everything that has threads beside the hub.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable

import gevent
from gevent.event import Event

_LOGGER = logging.getLogger(__name__)

Call = Callable[[], object]

BATCH_LENGTH = 16
"""Calls after which other greenlets have their turn."""


class HubQueue:
    """Made and closed on the hub; ``put``, ``wake`` and ``post`` are for any thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: deque[Call] = deque()
        self._wakeup = gevent.get_hub().loop.async_()
        self._arrived = Event()
        self._wakeup.start(self._arrived.set)
        # A thread that outlived its stop must not touch a watcher that is closed.
        self._open = threading.Lock()
        self._is_open = True
        self._greenlet = gevent.spawn(self._make_calls)
        self._greenlet.name = f"{name}-mailbox"

    def put(self, calls: Iterable[Call]) -> None:
        """Have them called on the hub when it is woken, after everything that was put in before."""
        self._calls.extend(calls)

    def wake(self) -> None:
        """Wake the hub for what is there. Again before it woke is cheap: its loop folds that into one wake-up."""
        with self._open:
            if self._is_open:
                self._wakeup.send()

    def post(self, calls: Iterable[Call]) -> None:
        """``put`` and ``wake``."""
        self._calls.extend(calls)
        self.wake()

    def close(self, *, make_calls: bool = False) -> None:
        """Make no more calls; with ``make_calls`` none after those that are there."""
        with self._open:
            self._is_open = False
        self._greenlet.kill()
        self._wakeup.stop()
        self._wakeup.close()
        while make_calls and self._calls:
            self._call(self._calls.popleft())

    def _make_calls(self) -> None:
        while True:
            self._arrived.wait()
            self._arrived.clear()
            made = 0
            while self._calls:
                self._call(self._calls.popleft())
                made += 1
                if made % BATCH_LENGTH == 0:
                    gevent.sleep(0)

    def _call(self, call: Call) -> None:
        try:
            call()
        except Exception:
            _LOGGER.exception("a call from the threads of %s failed", self._name)
