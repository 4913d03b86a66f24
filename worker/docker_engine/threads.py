"""A few threads for calls that block. They do not hold up the end of the process, as a ``ThreadPoolExecutor`` does."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_Call = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class CallThreads:
    """Threads named ``<name>-<number>``, started as they are needed and ended by ``close``."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._open_calls = 0

    async def run(self, call: Callable[[], T]) -> T:
        """What it gives or raises. One that is cancelled goes on if it has begun. From one asyncio loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._open_calls += 1
        if self._open_calls > len(self._threads) and len(self._threads) < self._size:
            thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._calls.put((loop, future, call))
        try:
            return await future
        finally:
            self._open_calls -= 1

    def close(self) -> None:
        """Let the threads end; one that hangs is left behind."""
        for _ in self._threads:
            self._calls.put(None)

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            loop, future, call = item
            if future.cancelled():
                continue
            result, error = None, None
            try:
                result = call()
            except Exception as exc:  # noqa: BLE001 - whatever it is, it belongs to who asked
                error = exc
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
                loop.call_soon_threadsafe(_settle, future, result, error)


def _settle(future: "asyncio.Future[Any]", result: object, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
