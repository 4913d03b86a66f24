"""The standard services beside Fleet, health checking and reflection: their calls may stay open, so there are few."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

MAX_WATCHERS = 100
MAX_REFLECTIONS = 20

CountCall = Callable[[str, grpc.StatusCode], None]
"""Called with the method and the code of a call that was refused, in grpc's thread."""


class _Room:
    """For so many calls of one method at a time. In grpc's thread."""

    def __init__(self, method: str, most: int, count: CountCall) -> None:
        self._method = method
        self._most = most
        self._count = count
        self._open = 0

    @asynccontextmanager
    async def taken(self, call: Any) -> AsyncIterator[None]:
        """Ends the call with RESOURCE_EXHAUSTED where there is none left."""
        if self._open >= self._most:
            self._count(self._method, grpc.StatusCode.RESOURCE_EXHAUSTED)
            told = f"the master serves at most {self._most} calls of {self._method} at a time"
            await call.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, told)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


class Health(health.aio.HealthServicer):
    """With few watchers."""

    def __init__(self, count: CountCall) -> None:
        super().__init__()
        self._room = _Room("Watch", MAX_WATCHERS, count)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:  # noqa: N802 - grpc's name
        """Tell of every change. Called by grpc."""
        async with self._room.taken(context):
            await super().Watch(request, context)


class Reflection(reflection.aio.ReflectionServicer):
    """With few clients."""

    def __init__(self, services: tuple[str, ...], count: CountCall) -> None:
        super().__init__(services)
        self._room = _Room("ServerReflectionInfo", MAX_REFLECTIONS, count)

    async def ServerReflectionInfo(  # type: ignore[override]  # noqa: N802 - grpc's name; its stub is of no generator
        self, request_iterator: Any, context: Any
    ) -> AsyncIterator[reflection_pb2.ServerReflectionResponse]:
        """Tell the contract. Called by grpc."""
        answers: Any = super().ServerReflectionInfo(request_iterator, context)
        async with self._room.taken(context):
            async for answer in answers:
                yield answer
