"""What a greenlet waits for and one of the store's threads finds out."""

from collections.abc import Callable
from typing import Any

from gevent.event import AsyncResult

Call = Callable[[], None]


class Answer:
    """``value`` and ``error`` make the calls that are to be posted to the hub."""

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
