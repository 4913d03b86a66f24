"""Health checking and reflection, with limits. In grpc's thread."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

MAX_WATCHERS = 100
MAX_REFLECTIONS = 20

CountCall = Callable[[str, grpc.StatusCode], None]
"""Called with the method and the code of a refused call, in grpc's thread."""


class CallLimiter:
    """Limits the open calls of one method. In grpc's thread."""

    def __init__(self, method: str, limit: int, count: CountCall) -> None:
        self._method = method
        self._limit = limit
        self._count = count
        self._open = 0

    @asynccontextmanager
    async def admit(self, call: Any) -> AsyncIterator[None]:
        """Ends the call with RESOURCE_EXHAUSTED above the limit."""
        if self._open >= self._limit:
            self._count(self._method, grpc.StatusCode.RESOURCE_EXHAUSTED)
            reason = f"the master serves at most {self._limit} calls of {self._method} at a time"
            await call.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, reason)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


class LimitedHealth(health.aio.HealthServicer):
    """Health checking with at most ``MAX_WATCHERS``."""

    def __init__(self, count: CountCall) -> None:
        super().__init__()
        self._limiter = CallLimiter("Watch", MAX_WATCHERS, count)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:  # noqa: N802 - grpc's name
        """Reports every change. Called by grpc."""
        async with self._limiter.admit(context):
            await super().Watch(request, context)


class LimitedReflection(reflection.aio.ReflectionServicer):
    """Reflection for at most ``MAX_REFLECTIONS`` clients."""

    def __init__(self, services: tuple[str, ...], count: CountCall) -> None:
        super().__init__(services)
        self._limiter = CallLimiter("ServerReflectionInfo", MAX_REFLECTIONS, count)

    async def ServerReflectionInfo(  # type: ignore[override]  # noqa: N802 - grpc's name; its stub is of no generator
        self, request_iterator: Any, context: Any
    ) -> AsyncIterator[reflection_pb2.ServerReflectionResponse]:
        """Describes the contract. Called by grpc."""
        answers: Any = super().ServerReflectionInfo(request_iterator, context)
        async with self._limiter.admit(context):
            async for answer in answers:
                yield answer
