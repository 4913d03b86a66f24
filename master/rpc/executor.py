"""Greenlets where grpc asks for a thread pool.

A sync gRPC server holds one pool thread for as long as a stream is open, so a pool of fixed size starves once that many
workers are connected. A greenlet for every call has no such limit; how many calls are taken at all is said once, by
``maximum_concurrent_rpcs``.
"""

from collections.abc import Callable
from concurrent import futures
from typing import Any

import gevent


class GreenletExecutor(futures.Executor):
    """Runs every call in a new greenlet. ``shutdown`` kills what still runs."""

    def __init__(self) -> None:
        self._greenlets: set[gevent.Greenlet] = set()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "futures.Future[Any]":
        future: futures.Future[Any] = futures.Future()
        greenlet = gevent.spawn(_run, future, fn, args, kwargs)
        greenlet.name = "grpc-call"
        self._greenlets.add(greenlet)
        greenlet.link(self._greenlets.discard)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        gevent.killall(list(self._greenlets), block=wait)

    def __len__(self) -> int:
        return len(self._greenlets)


def _run(future: "futures.Future[Any]", fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
    try:
        result = fn(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - it is handed to whoever holds the future
        future.set_exception(error)
    else:
        future.set_result(result)
