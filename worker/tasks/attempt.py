"""The life of one attempt on this worker: from an order, or a container that was found, to the container's removal."""

import asyncio
import contextlib
import logging
import time
import traceback
from collections.abc import Awaitable
from typing import NamedTuple, TypeVar

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.tasks.ending import Cause, ContainerExit, ending_of, may_lack_oom
from fleetpulse.worker.tasks.engine import (
    AttemptKey,
    Container,
    ContainerEngine,
    ContainerSpec,
    EngineError,
    NoSuchContainer,
    Status,
    Usage,
)
from fleetpulse.worker.tasks.health import EngineHealth
from fleetpulse.worker.tasks.images import Images
from fleetpulse.worker.tasks.log_reader import LogContext, LogReader
from fleetpulse.worker.tasks.outbox import Outbox
from fleetpulse.worker.tasks.waiting import happens_within

_log = logging.getLogger(__name__)

T = TypeVar("T")

PROGRESS_SECONDS = 2.0
"""News of a pull comes so often at most."""

TIMEOUT_GRACE_SECONDS = 10.0
KILL_AGAIN_SECONDS = 10.0
AGAIN_SECONDS = 0.1
OOM_SECONDS = 1.0


class AttemptContext(NamedTuple):
    """What all attempts of a worker share."""

    engine: ContainerEngine
    health: EngineHealth
    outbox: Outbox
    images: Images
    logs: LogContext
    may_start: asyncio.Event
    """Set when nothing runs that is not this worker's any more."""


class _StopBeforeStart(Exception):
    """The attempt was to end before its container had begun."""


class Attempt:
    """``run`` is all of it; cancelled, it leaves the container as it is. All methods belong to one asyncio loop."""

    def __init__(
        self,
        means: AttemptContext,
        key: AttemptKey,
        *,
        spec: ContainerSpec | None,
        found: Container | None,
        refusal: EngineError | None = None,
    ) -> None:
        """Of a new one there is a ``spec`` or a ``refusal``, of an adopted one the container that was ``found``."""
        self.key = key
        self.container_id = "" if found is None else found.container_id
        self.is_running = False
        self._means = means
        self._spec = spec
        self._refusal = refusal
        self._creating: asyncio.Task[str] | None = None
        self._log_received: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if found is None:
            self._log_received.set_result(0)
        self._poke = asyncio.Event()
        self._stop = asyncio.Event()
        self._grace_seconds = 0.0
        self._cause: Cause | None = None
        self._was_killed = False
        self._said_at = -PROGRESS_SECONDS
        self._usages: tuple[Usage | None, Usage | None] = (None, None)

    async def run(self) -> None:
        """Until its end was acknowledged and its container is gone."""
        try:
            ending = await self._live()
        except EngineError as error:
            ending = ContainerExit(pb.ATTEMPT_PHASE_FAILED, error.reason, str(error))
        except _StopBeforeStart:
            ending = ContainerExit(pb.ATTEMPT_PHASE_STOPPED, "stopped", "stopped before its container began to run")
        except Exception as error:  # noqa: BLE001 - a defect
            # The attempt must have its one end all the same. What the error says may quote the environment.
            what, where = type(error).__name__, "".join(traceback.format_tb(error.__traceback__))
            _log.error("attempt %s: a defect of this worker: %s\n%s", self.key, what, where)
            ending = ContainerExit(pb.ATTEMPT_PHASE_FAILED, "container_failed", f"a defect of the worker: {what}")
        self.is_running = False
        _log.info("attempt %s: %s %s", self.key, pb.AttemptPhase.Name(ending.phase)[14:].lower(), ending.message)
        await self._report(ending.phase, ending).wait()
        self._means.outbox.forget(self.key)
        await self.remove()

    def keep(self, log_received_bytes: int) -> None:
        """The master wants it to go on, and has this much of its log."""
        if not self._log_received.done():
            self._log_received.set_result(log_received_bytes)

    def stop(self, grace_seconds: float) -> None:
        """End it; a second call may shorten the grace."""
        self._grace_seconds = min(self._grace_seconds, grace_seconds) if self._stop.is_set() else grace_seconds
        self._stop.set()
        self._poke.set()

    def poke(self) -> None:
        """Its container may have ended: look."""
        self._poke.set()

    def add_usage(self, usage: Usage) -> None:
        """A reading; two make a rate."""
        self._usages = (self._usages[1], usage)

    def reading(self) -> pb.RunningTask:
        """What it takes now, for the heartbeat."""
        reading = pb.RunningTask(task_id=self.key.task_id, attempt=self.key.attempt)
        before, now = self._usages
        if now is not None and now.memory_bytes is not None:
            reading.memory_used_bytes = now.memory_bytes
        if before is not None and now is not None:
            percent = now.cpu_percent_since(before)
            if percent is not None:
                reading.cpu_usage_percent = percent
        return reading

    def abandon(self) -> None:
        """The worker ends, and the container, if there is one, is left to the next."""
        if self._creating is not None:
            self._creating.cancel()

    async def remove(self) -> None:
        """Kill and remove its container, however long the engine is away; one that is being made is waited for."""
        if self._creating is not None:
            with contextlib.suppress(EngineError):  # then there is none
                self.container_id = await self._creating
        if not self.container_id:
            return
        try:
            await self._means.health.persist(lambda: self._means.engine.remove(self.container_id), for_ever=True)
        except EngineError as error:
            _log.warning("attempt %s: its container stays for now: %s", self.key, error)

    async def _live(self) -> ContainerExit:
        if self._refusal is not None:
            raise self._refusal
        if not self.container_id:
            await self._prepare()
        container = await self._inspect()
        if container.status is Status.CREATED:
            await self._or_stop(self._means.may_start.wait())
            await self._means.health.persist(lambda: self._means.engine.start(self.container_id))
            container = await self._inspect()
        self._report(pb.ATTEMPT_PHASE_RUNNING, at=container.started_at)
        self.is_running = container.status is Status.RUNNING
        reader = LogReader(self._means.logs, self.key, self.container_id, container.log_limit_bytes)
        reading = asyncio.create_task(self._read_log(reader), name=f"log of {self.key}")
        try:
            container = await self._until_ended(container)
            self.is_running = False
            reader.container_ended()
            await reading
        finally:
            reading.cancel()
        return ending_of(container, self._cause, reader.tail)

    async def _prepare(self) -> None:
        assert self._spec is not None  # nosec B101 # for the type checker
        spec = self._spec
        self._report(pb.ATTEMPT_PHASE_PREPARING)
        await self._or_stop(self._means.may_start.wait())
        await self._or_stop(self._means.images.ensure(spec.image, self._tell))
        create = self._means.health.persist(lambda: self._means.engine.create(spec))
        # Not to be cancelled: whoever forgets this attempt waits for the container, to remove it.
        self._creating = asyncio.create_task(create, name=f"container of {self.key}")
        self.container_id = await self._or_stop(asyncio.shield(self._creating))
        self._creating = None

    async def _or_stop(self, work: Awaitable[T]) -> T:
        task, stop = asyncio.ensure_future(work), asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise _StopBeforeStart
        finally:
            task.cancel()
            stop.cancel()

    async def _read_log(self, reader: LogReader) -> None:
        await reader.run(await self._log_received)

    async def _inspect(self) -> Container:
        return await self._means.health.persist(lambda: self._means.engine.inspect(self.container_id))

    async def _until_ended(self, container: Container) -> Container:
        """See to its timeout and to its stop meanwhile."""
        loop = asyncio.get_running_loop()
        times_out_at = kill_at = None
        if container.timeout_seconds is not None and container.started_at is not None:
            times_out_at = loop.time() + container.timeout_seconds - max(time.time() - container.started_at, 0.0)
        while container.status is Status.RUNNING:
            if self._cause is None and self._stop.is_set():
                kill_at = await self._end(Cause.STOPPED, self._grace_seconds)
            elif self._cause is None and times_out_at is not None and loop.time() >= times_out_at:
                kill_at = await self._end(Cause.TIMEOUT, TIMEOUT_GRACE_SECONDS)
            elif kill_at is not None:
                if self._cause is Cause.STOPPED and not self._was_killed:
                    kill_at = min(kill_at, loop.time() + self._grace_seconds)
                if loop.time() >= kill_at:
                    await self._signal("SIGKILL")
                    self._was_killed, kill_at = True, loop.time() + KILL_AGAIN_SECONDS
            await self._until_something(times_out_at if kill_at is None else kill_at)
            container = await self._inspect()
        return container if self._cause is not None else await self._when_memory_is_told(container)

    async def _when_memory_is_told(self, container: Container) -> Container:
        """The engine may hear that the kernel took the memory a moment later than that the container has ended."""
        patience = asyncio.get_running_loop().time() + OOM_SECONDS
        while may_lack_oom(container) and asyncio.get_running_loop().time() < patience:
            await asyncio.sleep(OOM_SECONDS / 10)
            container = await self._inspect()
        return container

    async def _end(self, cause: Cause, grace_seconds: float) -> float:
        """When to kill it, or to try again. ``cause`` counts only if the container still ran."""
        loop = asyncio.get_running_loop()
        self._was_killed = grace_seconds <= 0.0
        if await self._signal("SIGKILL" if self._was_killed else "SIGTERM"):
            self._cause = cause
            return loop.time() + (KILL_AGAIN_SECONDS if self._was_killed else grace_seconds)
        return loop.time() + AGAIN_SECONDS

    async def _signal(self, name: str) -> bool:
        try:
            return await self._means.health.persist(lambda: self._means.engine.signal(self.container_id, name))
        except NoSuchContainer:
            return False

    async def _until_something(self, at: float | None) -> None:
        wait_seconds = None if at is None else max(at - asyncio.get_running_loop().time(), 0.0)
        if await happens_within(self._poke, wait_seconds):
            self._poke.clear()

    def _tell(self, progress: str) -> None:
        now = time.monotonic()
        if now - self._said_at >= PROGRESS_SECONDS:
            self._said_at = now
            self._report(pb.ATTEMPT_PHASE_PREPARING, ContainerExit(pb.ATTEMPT_PHASE_PREPARING, message=progress))

    def _report(
        self, phase: "pb.AttemptPhase.ValueType", ending: ContainerExit | None = None, at: float | None = None
    ) -> asyncio.Event:
        update = pb.TaskUpdate(
            id=self.key.message(), phase=phase, time_unix_seconds=at or time.time(), container_id=self.container_id
        )
        if ending is not None:
            update.reason, update.message = ending.reason, ending.message
            if ending.exit_code is not None:
                update.exit_code = ending.exit_code
            if ending.oom_killed is not None:
                update.oom_killed = ending.oom_killed
        return self._means.outbox.update(update)
