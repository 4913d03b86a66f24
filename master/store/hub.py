"""From the store's threads back to the gevent hub: what is posted by one is called by the other, in order."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import gevent
from gevent.event import AsyncResult, Event

_LOGGER = logging.getLogger(__name__)

Call = Callable[[], None]

BATCH_LENGTH = 64
"""Calls after which other greenlets have their turn."""


class Mailbox:
    """Made and closed on the hub; ``post`` is for any thread. All that waits when the hub wakes is one wake-up."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque()
        self._wakeup = gevent.get_hub().loop.async_()
        self._arrived = Event()
        self._wakeup.start(self._arrived.set)
        # A thread that outlived its stop must not touch a watcher that is closed.
        self._open = threading.Lock()
        self._is_open = True
        self._greenlet = gevent.spawn(self._make_calls)
        self._greenlet.name = "store-mailbox"

    def post(self, calls: Iterable[Call]) -> None:
        """Have them called on the hub, after everything that this thread posted before."""
        self._calls.extend(calls)
        with self._open:
            if self._is_open:
                self._wakeup.send()

    def close(self) -> None:
        """Make the calls that are there, and no more."""
        with self._open:
            self._is_open = False
        self._greenlet.kill()
        self._wakeup.stop()
        self._wakeup.close()
        while self._calls:
            _call(self._calls.popleft())

    def _make_calls(self) -> None:
        while True:
            self._arrived.wait()
            self._arrived.clear()
            made = 0
            while self._calls:
                _call(self._calls.popleft())
                made += 1
                if made % BATCH_LENGTH == 0:
                    gevent.sleep(0)


class Answer:
    """What a greenlet waits for and a thread finds out. ``value`` and ``error`` make the calls to be posted."""

    def __init__(self) -> None:
        self._result: AsyncResult[Any] = AsyncResult()

    def wait(self, timeout_seconds: float) -> bool:
        """On the hub: whether it has come."""
        self._result.wait(timeout_seconds)
        return self._result.ready()

    def result(self) -> Any:
        """On the hub: wait for the value, and return it, or for the error, and raise it."""
        return self._result.get()

    def value(self, value: Any) -> Call:
        return lambda: self._result.set(value)

    def error(self, error: BaseException) -> Call:
        return lambda: self._result.set_exception(error)


def _call(call: Call) -> None:
    try:
        call()
    except Exception:
        _LOGGER.exception("what was to follow a write failed")
