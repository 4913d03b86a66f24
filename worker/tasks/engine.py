"""The container engine as the executor sees it: a port, its values, its errors, its health, and pulls of images.

EngineError                  ``reason``: one of ``proto.rules.ATTEMPT_REASONS``; the message is for people
+-- EngineUnavailable        no answer; says nothing about any container; retry
+-- NoSuchContainer          somebody removed it
+-- EngineRefused            the engine answered, and will give the same answer again
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import NamedTuple, Protocol, TypeVar

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.cleaning import clean_text, make
from fleetpulse.proto.fields import Text
from fleetpulse.proto.image import parse_image
from fleetpulse.proto.rules import LOG_LIMIT_BYTES
from fleetpulse.worker.tasks.container_spec import AttemptKey, ContainerSpec

_log = logging.getLogger(__name__)

T = TypeVar("T")

Progress = Callable[[str], None]
"""Called on the loop with the progress of a pull, for people."""

ENGINE_TIMEOUT_SECONDS = 180.0
"""An attempt fails when the engine has not answered for so long."""

MAX_PARALLEL_PULLS = 3
"""From one registry: a slow one does not hold up the others."""

PULL_TIMEOUT_SECONDS = 60.0
"""A pull fails when the engine has told no progress for so long."""

PULL_PAUSES_SECONDS = (1.0, 4.0)
"""Before a pull that failed by chance is tried again within its attempt."""

_ENGINE_TEXT = Text(2000)
_FIRST_DELAY_SECONDS = 0.25
_MAX_DELAY_SECONDS = 5.0


class EngineError(Exception):
    """The message says what happened and, if possible, what to do."""

    def __init__(self, message: str, reason: str = "container_failed") -> None:
        # The engine's own text may be anything, and is sent to the master.
        super().__init__(clean_text(message, _ENGINE_TEXT))
        self.reason = reason


class EngineUnavailable(EngineError):
    """The engine did not answer. The request may have been carried out or not."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "docker_unavailable")


class NoSuchContainer(EngineError):
    """The container does not exist any more."""

    def __init__(self, container_id: str) -> None:
        super().__init__(f"the container {container_id[:12]} is gone; somebody else has removed it", "container_gone")


class EngineRefused(EngineError):
    """The engine cannot do what was requested."""


class _NoProgress(EngineRefused):
    def __init__(self, image: str, seconds: float) -> None:
        super().__init__(f"the pull of {image} made no progress for {seconds:g} s", "image_pull_failed")


class ContainerStatus(Enum):
    CREATED = "created"
    """Never started, or its start failed."""

    RUNNING = "running"
    ENDED = "ended"


class ContainerInfo(NamedTuple):
    """A container as the engine reports it. Times are Unix seconds of the engine's clock."""

    container_id: str
    key: AttemptKey
    status: ContainerStatus
    started_at: float | None = None
    finished_at: float | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    memory_bytes: int = 0
    timeout_seconds: float | None = None
    log_limit_bytes: int = LOG_LIMIT_BYTES
    disk_limit_bytes: int | None = None


class ContainerUsage(NamedTuple):
    """``cpu_seconds`` counts from the container's start; ``at`` is monotonic."""

    cpu_seconds: float | None
    memory_bytes: int | None
    at: float

    def cpu_percent_since(self, before: "ContainerUsage") -> float | None:
        """Percent of one core since an earlier reading; 200 is two busy cores."""
        if self.cpu_seconds is None or before.cpu_seconds is None or self.at <= before.at:
            return None
        return 100.0 * max(self.cpu_seconds - before.cpu_seconds, 0.0) / (self.at - before.at)


class LogStream(Protocol):
    """The output of one container, from its first byte."""

    async def read(self) -> bytes:
        """Waits for output; empty at the end. Cancelling loses nothing. Raises ``EngineUnavailable`` if it broke."""

    def close(self) -> None:
        """Ends a ``read`` under way. May be called twice."""


class ContainerEngine(Protocol):
    """Runs the containers of one worker and touches no others. All methods are called on one asyncio loop.

    Coroutines raise ``EngineError``. A cancelled call may still be carried out.
    """

    async def containers(self) -> Sequence[ContainerInfo]:
        """Every container of this worker, in any state. Exit codes and times may be missing."""

    async def has_image(self, image: str) -> bool: ...

    async def pull(self, image: str, progress: Progress, timeout_seconds: float) -> None:
        """Calls ``progress`` for each message of the engine. A cancelled pull ends after ``timeout_seconds`` at the
        latest; nobody waits for that."""

    async def create(self, spec: ContainerSpec) -> str:
        """Returns the id of the attempt's container, also when it exists already."""

    async def start(self, container_id: str) -> None:
        """Does nothing for a container that was started before."""

    async def inspect(self, container_id: str) -> ContainerInfo: ...

    async def signal(self, container_id: str, name: str) -> bool:
        """Sends a signal, such as ``SIGTERM``. Returns whether the container was running."""

    async def remove(self, container_id: str) -> None:
        """Kills and removes the container with its data. Does nothing if it is gone."""

    async def usage(self, container_id: str) -> ContainerUsage: ...

    async def written_bytes(self, container_id: str) -> int:
        """What the container has on its root filesystem beyond its image. The engine may walk all of its files."""

    def open_log(self, container_id: str, *, follow: bool) -> LogStream:
        """With ``follow`` the stream goes on until the container ends."""

    def listen(self, on_exit: Callable[[str], None]) -> None:
        """Calls ``on_exit`` on the loop with the id of each container that ended; an empty id means any of them."""

    async def close(self) -> None:
        """Releases everything, also calls that hang. Containers go on."""


class EngineClient:
    """Calls an engine, and knows whether it answers. All methods belong to one asyncio loop."""

    def __init__(self, engine: ContainerEngine, timeout_seconds: float = ENGINE_TIMEOUT_SECONDS) -> None:
        self.engine = engine
        self._timeout_seconds = timeout_seconds
        self._error: str | None = "the Docker Engine has not been asked yet"
        self._is_logged = self._has_answered = False
        self._available = asyncio.Event()
        self._unavailable_since = time.monotonic()
        self.failures = 0
        """How often it did not answer."""

    @property
    def task_support(self) -> pb.TaskSupport:
        """For the master."""
        return make(pb.TaskSupport, available=self._error is None, reason=self._error)

    @property
    def is_timed_out(self) -> bool:
        """Whether the engine has been unavailable for the whole timeout."""
        return self._error is not None and time.monotonic() - self._unavailable_since >= self._timeout_seconds

    def record_success(self) -> None:
        if self._error is not None:
            _log.info("the container engine answers: tasks can run here")
        self._error, self._is_logged, self._has_answered = None, False, True
        self._available.set()

    def record_failure(self, error: EngineUnavailable) -> None:
        """Logs the first failure of an outage."""
        self.failures += 1
        if self._error is None:
            self._unavailable_since = time.monotonic()
        if not self._is_logged:
            # A machine without an engine is worth a line, but no warning.
            level = logging.WARNING if self._has_answered else logging.INFO
            _log.log(level, "no tasks can run here for now: %s", error)
        self._error, self._is_logged = str(error), True
        self._available.clear()

    async def containers(self, timeout_seconds: float) -> Sequence[ContainerInfo]:
        """Asks once. Raises ``EngineError``."""
        try:
            async with asyncio.timeout(timeout_seconds):
                containers = await self.engine.containers()
        except (TimeoutError, EngineUnavailable) as error:
            text = str(error) or f"no answer from the engine in {timeout_seconds:g} s"
            self.record_failure(unavailable := EngineUnavailable(text))
            raise unavailable from error
        self.record_success()
        return containers

    async def retry(self, call: Callable[[ContainerEngine], Awaitable[T]], *, forever: bool = False) -> T:
        """Returns the result of the call, repeated while the engine is unavailable.

        Raises ``EngineUnavailable`` after the timeout, unless ``forever``.
        """
        give_up_at = None if forever else time.monotonic() + self._timeout_seconds
        delay = _FIRST_DELAY_SECONDS
        while True:
            try:
                result = await call(self.engine)
            except EngineUnavailable as error:
                self.record_failure(error)
                if give_up_at is not None and time.monotonic() >= give_up_at:
                    raise
            else:
                self.record_success()
                return result
            await wait_for_event(self._available, delay)
            delay = min(2 * delay, _MAX_DELAY_SECONDS)


async def wait_for_event(event: asyncio.Event, timeout_seconds: float | None) -> bool:
    """Returns whether the event was set in time; ``None`` waits without a limit."""
    try:
        async with asyncio.timeout(timeout_seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


class _Pull:
    """A pull under way and those that wait for it."""

    def __init__(self) -> None:
        self.waiting: list[Progress] = []
        self.progress = ""
        self.task: asyncio.Task[None] | None = None

    def report(self, text: str) -> None:
        self.progress = text = clean_text(text, _ENGINE_TEXT)
        for progress in self.waiting:
            progress(text)


class ImagePuller:
    """All methods belong to one asyncio loop."""

    def __init__(
        self,
        client: EngineClient,
        timeout_seconds: float = PULL_TIMEOUT_SECONDS,
        pauses_seconds: Sequence[float] = PULL_PAUSES_SECONDS,
    ) -> None:
        """``timeout_seconds``: without progress."""
        self._client = client
        self._timeout_seconds, self._pauses_seconds = timeout_seconds, pauses_seconds
        self._slots: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(MAX_PARALLEL_PULLS))
        """By registry."""
        self._pulls: dict[str, _Pull] = {}

    async def ensure(self, image: str, progress: Progress) -> None:
        """Returns when the machine has the image. Raises ``EngineError``."""
        if await self._client.retry(lambda engine: engine.has_image(image)):
            return
        pull = self._pulls.get(image)
        if pull is None:
            pull = self._pulls[image] = _Pull()
            pull.task = asyncio.create_task(self._run(image, pull), name=f"pull {image}")
        pull.waiting.append(progress)
        progress(pull.progress or f"pulling {image}")
        assert pull.task is not None  # nosec B101 # for the type checker
        try:
            await asyncio.shield(pull.task)
        finally:
            pull.waiting.remove(progress)
            if not pull.waiting:
                pull.task.cancel()  # no effect when it is done

    async def _run(self, image: str, pull: _Pull) -> None:
        registry = parse_image(image).registry
        slots = self._slots[registry]
        try:
            if slots.locked():
                pull.report(
                    f"waiting to pull {image}: {MAX_PARALLEL_PULLS} other images are being pulled from {registry}"
                )
            async with slots:
                await self._pull(image, pull)
        finally:
            del self._pulls[image]

    async def _pull(self, image: str, pull: _Pull) -> None:
        """Tries again when the registry could not be reached, or the pull broke off."""
        for pause_seconds in self._pauses_seconds:
            try:
                await self._client.retry(lambda engine: self._pull_once(engine, image, pull))
            except EngineRefused as error:
                if error.reason != "image_pull_failed" or isinstance(error, _NoProgress):
                    raise
                pull.report(f"trying again in {pause_seconds:g} s: {error}")
                await asyncio.sleep(pause_seconds)
            else:
                return
        await self._client.retry(lambda engine: self._pull_once(engine, image, pull))

    async def _pull_once(self, engine: ContainerEngine, image: str, pull: _Pull) -> None:
        loop, timeout_seconds = asyncio.get_running_loop(), self._timeout_seconds
        try:
            async with asyncio.timeout(timeout_seconds) as deadline:

                def progress(text: str) -> None:
                    if not deadline.expired():
                        deadline.reschedule(loop.time() + timeout_seconds)
                        pull.report(text)

                await engine.pull(image, progress, timeout_seconds)
        except TimeoutError:
            raise _NoProgress(image, timeout_seconds) from None
