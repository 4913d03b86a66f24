"""What runs containers, as the executor sees it: a port, what goes in and comes out, and how it fails.

EngineError                  ``reason``: one of ``proto.rules.ATTEMPT_REASONS``; the message is for people
+-- EngineUnavailable        no answer: says nothing about any container, and is to be tried again
+-- NoSuchContainer          somebody removed it
+-- EngineRefused            it answered, and will give the same answer again
"""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple, Protocol

from fleetpulse.proto import fleetpulse_pb2 as pb

DEFAULT_LOG_LIMIT_BYTES = 10 * 1024 * 1024
DEFAULT_PIDS_LIMIT = 1024

Progress = Callable[[str], None]
"""Told, on the loop, how far a pull has come: for people."""


class EngineError(Exception):
    """The message says what happened and, where one can act on it, what to do."""

    def __init__(self, message: str, reason: str = "container_failed") -> None:
        super().__init__(message)
        self.reason = reason


class EngineUnavailable(EngineError):
    """The engine did not answer. What it was asked for may have been done or not."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "docker_unavailable")


class NoSuchContainer(EngineError):
    """The container is not there any more."""

    def __init__(self, container_id: str) -> None:
        super().__init__(f"the container {container_id[:12]} is gone; somebody else has removed it", "container_gone")


class EngineRefused(EngineError):
    """The engine cannot do what it was asked for."""


class AttemptKey(NamedTuple):
    """One run of a task; what ``AttemptId`` is on the wire."""

    task_id: str
    attempt: int

    @classmethod
    def of(cls, message: pb.AttemptId) -> "AttemptKey":
        return cls(message.task_id, message.attempt)

    def message(self) -> pb.AttemptId:
        return pb.AttemptId(task_id=self.task_id, attempt=self.attempt)

    def __str__(self) -> str:
        """For a log: a master may send any id."""
        return f"{ascii(self.task_id)[1:-1]}/{self.attempt}"


class ContainerSpec(NamedTuple):
    """The container of one attempt. Its timeout and the limit of its log stay with it, for whoever adopts it."""

    key: AttemptKey
    image: str
    command: Sequence[str] = ()
    """Empty: what the image says."""

    env: Mapping[str, str] = MappingProxyType({})
    cpu_cores: float = 0.0
    """0: no limit; so for memory."""

    memory_bytes: int = 0
    pids_limit: int = DEFAULT_PIDS_LIMIT
    read_only: bool = False
    """Its root filesystem."""

    user: str | None = None
    """``None``: as the image says."""

    has_network: bool = True
    """Docker's bridge; ``False``: the loopback device alone."""

    gpu_uuids: Sequence[str] = ()
    timeout_seconds: float | None = None
    log_limit_bytes: int = DEFAULT_LOG_LIMIT_BYTES

    def __repr__(self) -> str:
        """Without the values of ``env``: secrets travel there."""
        return f"ContainerSpec{tuple(self._replace(env=dict.fromkeys(self.env, '***')))!r}"


class Status(Enum):
    CREATED = "created"
    """Made and never started, or its start failed."""

    RUNNING = "running"
    ENDED = "ended"


class Container(NamedTuple):
    """A container as the engine has it. Times are Unix seconds by the engine's clock."""

    container_id: str
    key: AttemptKey
    status: Status
    started_at: float | None = None
    finished_at: float | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    memory_bytes: int = 0
    timeout_seconds: float | None = None
    log_limit_bytes: int = DEFAULT_LOG_LIMIT_BYTES


class Usage(NamedTuple):
    """What a container takes. ``cpu_seconds`` counts since its start; ``at`` is monotonic."""

    cpu_seconds: float | None
    memory_bytes: int | None
    at: float

    def cpu_percent_since(self, before: "Usage") -> float | None:
        """Share of one core since an earlier reading; 200 is two cores kept busy."""
        if self.cpu_seconds is None or before.cpu_seconds is None or self.at <= before.at:
            return None
        return 100.0 * max(self.cpu_seconds - before.cpu_seconds, 0.0) / (self.at - before.at)


class LogStream(Protocol):
    """What one container wrote, from its first byte on."""

    async def read(self) -> bytes:
        """What came since the last call, of which there is some; empty at the end. Cancelling it loses nothing.

        Raises ``EngineUnavailable`` when the stream broke.
        """
        ...

    def close(self) -> None:
        """Let it go, wherever it stands; ends a ``read`` under way. Twice is fine."""
        ...


class ContainerEngine(Protocol):
    """Runs the containers of one worker and touches no others. All methods are called on one asyncio loop.

    What waits raises an ``EngineError``. A call that is cancelled may still be carried out.
    """

    async def containers(self) -> Sequence[Container]:
        """All that the engine has of this worker, whatever their state. Exit codes and times may be missing here."""
        ...

    async def has_image(self, image: str) -> bool: ...

    async def pull(self, image: str, progress: Progress) -> None: ...

    async def create(self, spec: ContainerSpec) -> str:
        """The id of the attempt's container; of the one that it has already, if there is one."""
        ...

    async def start(self, container_id: str) -> None:
        """One that has been started before stays as it is, whether it runs or has ended."""
        ...

    async def inspect(self, container_id: str) -> Container: ...

    async def signal(self, container_id: str, name: str) -> bool:
        """Send a signal, by its name as ``SIGTERM``; whether the container ran and so has got it."""
        ...

    async def remove(self, container_id: str) -> None:
        """Kill it if it runs, and remove it with everything that it wrote; one that is gone is removed."""
        ...

    async def usage(self, container_id: str) -> Usage: ...

    def open_log(self, container_id: str, *, follow: bool) -> LogStream:
        """Begin to read; with ``follow`` until the container ends."""
        ...

    def listen(self, changed: Callable[[str], None]) -> None:
        """Call this, on the loop, with the id of each container that ended; an empty one stands for any of them."""
        ...

    async def close(self) -> None:
        """Let go of everything, whatever hangs. Containers go on."""
        ...
