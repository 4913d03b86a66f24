"""A queue of calls from native threads to the gevent hub.

All calls that wait when the hub wakes cost one wake-up. Used by everything that has threads beside the hub.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import gevent

_LOGGER = logging.getLogger(__name__)

Call = Callable[[], object]

SLICE_SECONDS = 0.01
"""Calls are made for this long before other greenlets run."""


def give_way() -> None:
    """Let all others run that can: greenlets, and whatever has arrived on a socket.

    After ``gevent.sleep(0)`` the hub looks at sockets only at every fiftieth turn. 50 slices of work are half a second.
    """
    hub = gevent.get_hub()
    # A timer is looked at after the sockets; the second turn is for the greenlets that wait already.
    hub.wait(hub.loop.timer(0))
    gevent.sleep(0)


class Wake:
    """An event for the one greenlet that waits: half the time and 1 kB less of its stack than gevent's."""

    __slots__ = ("__weakref__", "_is_set", "_waiting")

    def __init__(self) -> None:
        self._is_set = False
        self._waiting: Any = None

    def set(self) -> None:
        """Wake the greenlet, now or when it waits next."""
        self._is_set = True
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            gevent.get_hub().loop.run_callback(waiting.switch)

    def wait(self) -> None:
        """Wait in the current greenlet until ``set`` was called since the last time."""
        while not self._is_set:
            self._waiting = gevent.getcurrent()
            gevent.get_hub().switch()
        self._is_set = False


class HubQueue:
    """Made and closed on the hub; ``put``, ``wake`` and ``post`` are for any thread. Calls are made in order.

    Calls are made in slices of time, so that thousands that wait delay no other greenlet by more than
    ``SLICE_SECONDS`` and one call.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._calls: deque[Call] = deque()
        self._wakeup = gevent.get_hub().loop.async_()
        self._arrived = Wake()
        self._wakeup.start(self._arrived.set)
        # A thread that outlives its stop must not touch a closed watcher.
        self._lock = threading.Lock()
        self._is_open = True
        self._greenlet = gevent.spawn(self._run)
        self._greenlet.name = f"{name}-queue"

    def put(self, call: Call) -> None:
        """Queues a call; it is made when the hub is woken."""
        self._calls.append(call)

    def wake(self) -> None:
        """Wakes the hub. Cheap to repeat before it wakes: its loop folds that into one wake-up."""
        with self._lock:
            if self._is_open:
                self._wakeup.send()

    def post(self, calls: Iterable[Call]) -> None:
        """Queues calls and wakes the hub."""
        self._calls.extend(calls)
        self.wake()

    def close(self, *, make_calls: bool = False) -> None:
        """Makes no more calls; with ``make_calls`` those that are queued, and no others."""
        with self._lock:
            self._is_open = False
        self._greenlet.kill()
        self._wakeup.stop()
        self._wakeup.close()
        while make_calls and self._calls:
            self._make(self._calls.popleft())

    def _run(self) -> None:
        while True:
            self._arrived.wait()
            ends_at = self._clock() + SLICE_SECONDS
            while self._calls:
                self._make(self._calls.popleft())
                if self._clock() >= ends_at:
                    give_way()
                    ends_at = self._clock() + SLICE_SECONDS

    def _make(self, call: Call) -> None:
        try:
            call()
        except Exception:
            _LOGGER.exception("a call from the threads of %s failed", self._name)
