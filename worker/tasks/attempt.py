"""Runs one attempt: from a request, or a container that was found, to the removal of the container."""

import asyncio
import contextlib
import logging
import signal
import time
import traceback
from collections.abc import Awaitable
from enum import Enum, auto
from typing import NamedTuple, TypeVar

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.cleaning import make
from fleetpulse.worker.tasks.container_spec import AttemptKey, ContainerSpec, RequestRefused
from fleetpulse.worker.tasks.engine import (
    ContainerInfo,
    ContainerStatus,
    ContainerUsage,
    EngineClient,
    EngineError,
    ImagePuller,
    NoSuchContainer,
    wait_for_event,
)
from fleetpulse.worker.tasks.log_reader import LogReader
from fleetpulse.worker.tasks.outbox import Outbox

_log = logging.getLogger(__name__)

T = TypeVar("T")

PROGRESS_SECONDS = 2.0
"""Least time between two updates about a pull."""

TIMEOUT_GRACE_SECONDS = 10.0
KILL_RETRY_SECONDS = 10.0
SIGNAL_RETRY_SECONDS = 0.1
OOM_WAIT_SECONDS = 1.0

_SIGNALLED = 128
"""A shell, docker-init and Docker give 128 + n as the exit code of a process that signal n ended."""

_INIT_FAILED = b"[FATAL tini ("
"""Begins the one line that docker-init, which is tini, writes when it cannot run the command."""


class StopCause(Enum):
    """Why the worker ended a container."""

    STOPPED = auto()
    TIMEOUT = auto()
    DISK_LIMIT = auto()


class AttemptContext(NamedTuple):
    """Shared by all attempts of a worker."""

    client: EngineClient
    outbox: Outbox
    images: ImagePuller
    follow_slots: asyncio.Semaphore
    may_start: asyncio.Event
    """Set when no container of an attempt that is not this worker's is left."""


class _StoppedBeforeStart(Exception):
    """The attempt was stopped before its container ran."""


class AttemptRunner:
    """``run`` once; if it is cancelled the container stays as it is. All methods belong to one asyncio loop."""

    def __init__(
        self, context: AttemptContext, key: AttemptKey, origin: ContainerSpec | RequestRefused | ContainerInfo
    ) -> None:
        """``origin``: the spec of a new attempt, the refusal of its request, or the container that it adopts."""
        self.key = key
        self.container_id = origin.container_id if isinstance(origin, ContainerInfo) else ""
        self.is_running = False
        self._context = context
        self._origin = origin
        self._creating: asyncio.Task[str] | None = None
        self._log_received: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if not self.container_id:
            self._log_received.set_result(0)
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._disk_limit_bytes: int | None = None
        self._is_over_disk_limit = False
        self._grace_seconds = 0.0
        self._cause: StopCause | None = None
        self._was_killed = False
        self._progress_at = -PROGRESS_SECONDS
        self._usages: tuple[ContainerUsage | None, ContainerUsage | None] = (None, None)

    async def run(self) -> None:
        """Returns when the end of the attempt is acknowledged and its container is removed."""
        try:
            end = await self._run_container()
        except (EngineError, RequestRefused) as error:
            end = pb.TaskUpdate(phase=pb.ATTEMPT_PHASE_FAILED, reason=error.reason, message=str(error))
        except _StoppedBeforeStart as error:
            end = pb.TaskUpdate(phase=pb.ATTEMPT_PHASE_STOPPED, reason="stopped", message=str(error))
        except Exception as error:  # noqa: BLE001 - a defect
            # The attempt must end all the same. The text of the error may quote the environment.
            kind, stack = type(error).__name__, "".join(traceback.format_tb(error.__traceback__))
            _log.error("attempt %s: a defect of this worker: %s\n%s", self.key, kind, stack)
            message = f"a defect of the worker: {kind}"
            end = pb.TaskUpdate(phase=pb.ATTEMPT_PHASE_FAILED, reason="container_failed", message=message)
        self.is_running = False
        _log.info("attempt %s: %s %s", self.key, pb.AttemptPhase.Name(end.phase)[14:].lower(), end.message)
        await self._report(end).wait()
        self._context.outbox.forget(self.key)
        await self.remove()

    def keep(self, log_received_bytes: int) -> None:
        """The master keeps the attempt, and has this much of its log."""
        if not self._log_received.done():
            self._log_received.set_result(log_received_bytes)

    def stop(self, grace_seconds: float) -> None:
        """A second call may shorten the grace period."""
        self._grace_seconds = min(self._grace_seconds, grace_seconds) if self._stop.is_set() else grace_seconds
        self._stop.set()
        self._wake.set()

    def notify(self) -> None:
        """The container may have ended."""
        self._wake.set()

    def add_usage(self, usage: ContainerUsage) -> None:
        """Two readings make a rate."""
        self._usages = (self._usages[1], usage)

    def add_written(self, written_bytes: int) -> None:
        """What the container keeps on disk; over its limit it is killed."""
        if self._disk_limit_bytes is not None and written_bytes > self._disk_limit_bytes:
            self._is_over_disk_limit = True
            self._wake.set()

    def usage_report(self) -> pb.RunningTask:
        """The last readings, for the heartbeat."""
        before, now = self._usages
        return make(
            pb.RunningTask,
            task_id=self.key.task_id,
            attempt=self.key.attempt,
            memory_used_bytes=None if now is None else now.memory_bytes,
            cpu_usage_percent=None if before is None or now is None else now.cpu_percent_since(before),
        )

    def abandon(self) -> None:
        """The worker ends; the container stays for its next start."""
        if self._creating is not None:
            self._creating.cancel()

    async def remove(self) -> None:
        """Kills and removes the container, also one that is being created."""
        if self._creating is not None:
            with contextlib.suppress(EngineError):  # then there is none
                self.container_id = await self._creating
        if self.container_id:
            await remove_container(self._context, self.container_id)

    async def _run_container(self) -> pb.TaskUpdate:
        if isinstance(self._origin, RequestRefused):
            raise self._origin
        if isinstance(self._origin, ContainerSpec):
            await self._create(self._origin)
        container = await self._inspect()
        if container.status is ContainerStatus.CREATED:
            await self._unless_stopped(self._context.may_start.wait())
            await self._context.client.retry(lambda engine: engine.start(self.container_id))
            container = await self._inspect()
        self._report(pb.TaskUpdate(phase=pb.ATTEMPT_PHASE_RUNNING, time_unix_seconds=container.started_at or 0.0))
        self._disk_limit_bytes = container.disk_limit_bytes
        self.is_running = container.status is ContainerStatus.RUNNING
        reader = LogReader(
            self._context.client,
            self._context.outbox,
            self._context.follow_slots,
            self.key,
            self.container_id,
            container.log_limit_bytes,
        )
        reading = asyncio.create_task(reader.run(self._log_received), name=f"log of {self.key}")
        try:
            container = await self._wait_for_exit(container)
            self.is_running = False
            reader.container_ended()
            await reading
        finally:
            reading.cancel()
        return exit_update(container, self._cause, reader.tail)

    async def _create(self, spec: ContainerSpec) -> None:
        self._report(pb.TaskUpdate(phase=pb.ATTEMPT_PHASE_PREPARING))
        await self._unless_stopped(self._context.may_start.wait())
        await self._unless_stopped(self._context.images.ensure(spec.image, self._report_progress))
        create = self._context.client.retry(lambda engine: engine.create(spec))
        # Never cancelled by a stop: ``remove`` waits for the container.
        self._creating = asyncio.create_task(create, name=f"container of {self.key}")
        self.container_id = await self._unless_stopped(asyncio.shield(self._creating))
        self._creating = None

    async def _unless_stopped(self, work: Awaitable[T]) -> T:
        """Raises ``_StoppedBeforeStart`` and cancels the work when the attempt is stopped first."""
        task, stop = asyncio.ensure_future(work), asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise _StoppedBeforeStart("stopped before its container began to run")
        finally:
            task.cancel()
            stop.cancel()

    async def _inspect(self) -> ContainerInfo:
        return await self._context.client.retry(lambda engine: engine.inspect(self.container_id))

    async def _wait_for_exit(self, container: ContainerInfo) -> ContainerInfo:
        """Ends the container at its timeout and when the attempt is stopped."""
        loop = asyncio.get_running_loop()
        times_out_at = kill_at = None
        if container.timeout_seconds is not None and container.started_at is not None:
            times_out_at = loop.time() + container.timeout_seconds - max(time.time() - container.started_at, 0.0)
        while container.status is ContainerStatus.RUNNING:
            if self._cause is None and self._stop.is_set():
                kill_at = await self._terminate(StopCause.STOPPED, self._grace_seconds)
            elif self._cause is None and times_out_at is not None and loop.time() >= times_out_at:
                kill_at = await self._terminate(StopCause.TIMEOUT, TIMEOUT_GRACE_SECONDS)
            elif self._cause is None and self._is_over_disk_limit:
                kill_at = await self._terminate(StopCause.DISK_LIMIT, 0.0)
            elif kill_at is not None:
                if self._cause is StopCause.STOPPED and not self._was_killed:
                    kill_at = min(kill_at, loop.time() + self._grace_seconds)
                if loop.time() >= kill_at:
                    await self._signal("SIGKILL")
                    self._was_killed, kill_at = True, loop.time() + KILL_RETRY_SECONDS
            due = times_out_at if kill_at is None else kill_at
            if await wait_for_event(self._wake, None if due is None else max(due - loop.time(), 0.0)):
                self._wake.clear()
            container = await self._inspect()
        # The engine may learn of an out-of-memory kill a moment after the exit.
        give_up_at = loop.time() + OOM_WAIT_SECONDS
        while self._cause is None and _may_be_oom(container) and loop.time() < give_up_at:
            await asyncio.sleep(OOM_WAIT_SECONDS / 10)
            container = await self._inspect()
        return container

    async def _terminate(self, cause: StopCause, grace_seconds: float) -> float:
        """Returns when to kill the container or to retry. Records the cause only if the container was running."""
        loop = asyncio.get_running_loop()
        self._was_killed = grace_seconds <= 0.0
        if await self._signal("SIGKILL" if self._was_killed else "SIGTERM"):
            self._cause = cause
            return loop.time() + (KILL_RETRY_SECONDS if self._was_killed else grace_seconds)
        return loop.time() + SIGNAL_RETRY_SECONDS

    async def _signal(self, name: str) -> bool:
        try:
            return await self._context.client.retry(lambda engine: engine.signal(self.container_id, name))
        except NoSuchContainer:
            return False

    def _report_progress(self, progress: str) -> None:
        now = time.monotonic()
        if now - self._progress_at >= PROGRESS_SECONDS:
            self._progress_at = now
            self._report(pb.TaskUpdate(phase=pb.ATTEMPT_PHASE_PREPARING, message=progress))

    def _report(self, update: pb.TaskUpdate) -> asyncio.Event:
        """Returns the event of its acknowledgement."""
        update.id.CopyFrom(self.key.message())
        update.container_id = self.container_id
        update.time_unix_seconds = update.time_unix_seconds or time.time()
        return self._context.outbox.add_update(update)


async def remove_container(context: AttemptContext, container_id: str) -> None:
    """Kills and removes a container. Retries while the engine is unavailable; logs any other error."""
    try:
        await context.client.retry(lambda engine: engine.remove(container_id), forever=True)
    except EngineError as error:
        _log.warning("container %s stays for now: %s", container_id[:12], error)


def exit_update(container: ContainerInfo, cause: StopCause | None, last_output: bytes) -> pb.TaskUpdate:
    """What the end of a container means for its attempt. Pure.

    ``cause``: why the worker signalled it while it ran. ``last_output``: the last few hundred bytes of its log.
    """
    code, oom_killed = container.exit_code or 0, container.oom_killed
    if cause is None and _ended_by_timeout(container):
        cause = StopCause.TIMEOUT  # by a worker that was killed before it could report
    phase, reason, message = pb.ATTEMPT_PHASE_FAILED, "exit_code", f"the command ended with {_describe_code(code)}"
    if cause is StopCause.STOPPED:
        phase, reason, message = pb.ATTEMPT_PHASE_STOPPED, "stopped", f"stopped; it ended with {_describe_code(code)}"
    elif cause is StopCause.TIMEOUT:
        reason = "timeout"
        message = f"it ran for longer than its timeout_seconds, {container.timeout_seconds or 0:g}, and was ended"
    elif cause is StopCause.DISK_LIMIT:
        limit = f"{(container.disk_limit_bytes or 0) / 2**20:g} MiB"
        reason, message = "disk_limit", f"it wrote more than {limit}, this worker's max_disk_mib, and was ended"
    elif code == 0:
        phase, reason, message = pb.ATTEMPT_PHASE_COMPLETED, "", ""
    elif oom_killed:
        limit = f" of {container.memory_bytes / 2**20:g} MiB" if container.memory_bytes else ""
        reason = "out_of_memory"
        message = f"it needed more memory than its limit{limit}, and the kernel ended it; raise memory_required"
    elif last_output.startswith(_INIT_FAILED) and last_output.count(b"\n") == 1:
        error = last_output.decode("utf-8", "replace").strip().partition("] ")[2]
        reason, message = "command_not_found", f"the command cannot be run in this image: {error}"
        if "Exec format error" in error:
            reason, message = "image_invalid", f"the image is made for another kind of processor: {error}"
    elif _may_be_oom(container):
        # An engine may lose this event of a container that ends at once (containerd before 2.3).
        message += f"; perhaps it needed more memory than its limit of {container.memory_bytes / 2**20:g} MiB"
    return pb.TaskUpdate(
        phase=phase, reason=reason, message=message, exit_code=container.exit_code, oom_killed=oom_killed
    )


def _may_be_oom(container: ContainerInfo) -> bool:
    """Whether it was killed as for its memory limit, and the engine does not say so."""
    was_killed = container.exit_code == _SIGNALLED + signal.SIGKILL
    return container.memory_bytes > 0 and was_killed and not container.oom_killed


def _ended_by_timeout(container: ContainerInfo) -> bool:
    if container.timeout_seconds is None or container.started_at is None or container.finished_at is None:
        return False
    was_ended = container.exit_code in {_SIGNALLED + signal.SIGTERM, _SIGNALLED + signal.SIGKILL}
    return was_ended and container.finished_at - container.started_at >= container.timeout_seconds


def _describe_code(code: int) -> str:
    try:
        return f"exit code {code} ({signal.Signals(code - _SIGNALLED).name})"
    except ValueError:
        return f"exit code {code}"
