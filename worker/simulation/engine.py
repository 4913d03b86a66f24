"""Simulated containers: ``tasks.engine.ContainerEngine`` in memory, on the clock of the asyncio loop.

The engine outlives the executors that use it, as Docker outlives a worker, so a simulated worker that was cut off finds
its containers again. Tests set ``is_unavailable`` and ``images``, and use commands that are understood: ``sleep 3``,
``echo words``, ``head -c 100 /dev/zero``, ``exit 7``, ``true``, ``false`` and ``trap '' TERM``, alone or as ``sh -c``
with several of them between ``;`` or ``&&``. Any other command takes a random time and mostly ends well.
"""

import asyncio
import contextlib
import random
import re
import shlex
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fleetpulse.proto.image import parse_image
from fleetpulse.worker.tasks.container_spec import AttemptKey, ContainerSpec
from fleetpulse.worker.tasks.engine import (
    ContainerInfo,
    ContainerStatus,
    ContainerUsage,
    EngineRefused,
    EngineUnavailable,
    NoSuchContainer,
    Progress,
)

_SIGTERM_CODE, _SIGKILL_CODE = 143, 137
_SEPARATORS = re.compile(r"\s*(?:;|&&|\n)\s*")
_MEDIAN_SECONDS = 5.0
_SPREAD = 0.8
_MAX_SECONDS = 60.0
_FAILURE_RATIO = 0.05


class CommandStep(NamedTuple):
    """Writes ``output``, waits, and with an ``exit_code`` ends the command."""

    output: bytes = b""
    seconds: float = 0.0
    exit_code: int | None = None


class SimulatedCommand(NamedTuple):
    steps: Sequence[CommandStep]
    ignores_sigterm: bool = False


def parse_command(command: Sequence[str], rng: random.Random) -> SimulatedCommand:
    """Draws from ``rng`` only for commands that are not understood."""
    lines = [list(command)]
    if list(command[:2]) == ["sh", "-c"] and len(command) > 2:
        lines = [_words(line) for line in _SEPARATORS.split(command[2]) if line.strip()]
    steps = [_parse_step(words, rng) for words in lines]
    return SimulatedCommand(steps, ignores_sigterm=any(words[:1] == ["trap"] for words in lines))


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # an open quote
        return line.split()


def _parse_step(words: Sequence[str], rng: random.Random) -> CommandStep:
    name, rest = (words[0], words[1:]) if words else ("", ())
    number = _number(rest[0]) if rest else None
    if name == "sleep" and number is not None:
        return CommandStep(seconds=number)
    if name == "exit":
        return CommandStep(exit_code=int(number or 0) & 0xFF)
    if name == "echo":
        return CommandStep(output=f"{' '.join(rest)}\n".encode())
    if name == "head" and list(rest[:1]) == ["-c"] and list(rest[2:]) == ["/dev/zero"]:
        return CommandStep(output=bytes(int(_number(rest[1]) or 0)))
    if name in {"true", "trap", "false"}:
        return CommandStep(exit_code=1 if name == "false" else None)
    seconds = min(rng.lognormvariate(0.0, _SPREAD) * _MEDIAN_SECONDS, _MAX_SECONDS)
    fails = rng.random() < _FAILURE_RATIO
    return CommandStep(f"simulated: {' '.join(words)}\n".encode(), seconds, exit_code=1 if fails else None)


def _number(text: str) -> float | None:
    try:
        return max(float(text), 0.0)
    except ValueError:
        return None


class _SimulatedContainer:
    """A container and its output."""

    def __init__(self, container_id: str, spec: ContainerSpec, rng: random.Random) -> None:
        self.info = ContainerInfo(
            container_id, spec.key, ContainerStatus.CREATED, memory_bytes=spec.memory_bytes,
            timeout_seconds=spec.timeout_seconds, log_limit_bytes=spec.log_limit_bytes,
        )  # fmt: skip
        self.output = bytearray()
        self.readers: set[_SimulatedLog] = set()
        self.cpu_load = spec.cpu_cores * rng.uniform(0.3, 0.95)
        self.memory_used = int(spec.memory_bytes * rng.uniform(0.2, 0.8))
        self.command = parse_command(spec.command, rng)
        self.process: asyncio.Task[None] | None = None

    async def run(self, on_exit: Callable[[int], None]) -> None:
        for step in self.command.steps:
            self.output += step.output
            self.notify_readers()
            if step.seconds:
                await asyncio.sleep(step.seconds)
            if step.exit_code is not None:
                on_exit(step.exit_code)
                return
        on_exit(0)

    def notify_readers(self) -> None:
        """There is output, or the container ended."""
        for reader in self.readers:
            reader.readable.set()


class _SimulatedLog:
    """``tasks.engine.LogStream`` of one simulated container."""

    def __init__(self, container: _SimulatedContainer, engine: "SimulatedEngine", *, follow: bool) -> None:
        self.readable = asyncio.Event()
        self._container = container
        self._engine = engine
        self._follow = follow
        self._position = 0
        self._is_closed = False
        container.readers.add(self)

    async def read(self) -> bytes:
        """See ``LogStream``."""
        while not self._is_closed:
            self._engine.check_available()
            data = bytes(self._container.output[self._position :])
            self._position += len(data)
            if data or not self._follow or self._container.info.status is ContainerStatus.ENDED:
                return data
            self.readable.clear()
            await self.readable.wait()
        return b""

    def close(self) -> None:
        """See ``LogStream``."""
        self._is_closed = True
        self._container.readers.discard(self)
        self.readable.set()


class SimulatedEngine:
    """The engine of one worker, over all its incarnations. All methods belong to one asyncio loop."""

    def __init__(self, rng: random.Random, images: set[str] | None = None, pull_seconds: float = 0.0) -> None:
        """``images``: those that need no pull; ``None``: all. No registry has images below ``missing/``."""
        self.images = images
        self.is_unavailable = False
        """It answers nothing, as Docker while it restarts. Containers go on."""
        self.pulls: list[str] = []
        self.starts: list[AttemptKey] = []
        self._rng = rng
        self._pull_seconds = pull_seconds
        self._containers: dict[str, _SimulatedContainer] = {}
        self._on_exit: Callable[[str], None] | None = None

    def check_available(self) -> None:
        """Raises ``EngineUnavailable``."""
        if self.is_unavailable:
            raise EngineUnavailable("the simulated engine is away")

    async def containers(self) -> Sequence[ContainerInfo]:
        self.check_available()
        return [container.info for container in self._containers.values()]

    async def has_image(self, image: str) -> bool:
        self.check_available()
        return not _is_missing(image) and (self.images is None or image in self.images)

    async def pull(self, image: str, progress: Progress, timeout_seconds: float) -> None:
        self.check_available()
        self.pulls.append(image)
        progress(f"pulling {image}: 0 of 1 layers")
        await asyncio.sleep(self._pull_seconds)
        self.check_available()
        if _is_missing(image):
            raise EngineRefused(f"no registry gives {image}", "image_not_found")
        if self.images is not None:
            self.images.add(image)

    async def create(self, spec: ContainerSpec) -> str:
        self.check_available()
        for container_id, container in self._containers.items():
            if container.info.key == spec.key:
                return container_id
        container_id = f"{self._rng.getrandbits(256):064x}"
        self._containers[container_id] = _SimulatedContainer(container_id, spec, self._rng)
        return container_id

    async def start(self, container_id: str) -> None:
        container = self._container(container_id)
        if container.info.status is ContainerStatus.CREATED:
            self.starts.append(container.info.key)
            container.info = container.info._replace(status=ContainerStatus.RUNNING, started_at=time.time())
            process = container.run(lambda code: self._end(container, code))
            container.process = asyncio.create_task(process, name=f"container {container_id[:12]}")

    async def inspect(self, container_id: str) -> ContainerInfo:
        return self._container(container_id).info

    async def signal(self, container_id: str, name: str) -> bool:
        container = self._container(container_id)
        if container.info.status is not ContainerStatus.RUNNING:
            return False
        if name == "SIGKILL":
            self._end(container, _SIGKILL_CODE)
        elif not container.command.ignores_sigterm:
            self._end(container, _SIGTERM_CODE)
        return True

    async def remove(self, container_id: str) -> None:
        self.check_available()
        container = self._containers.pop(container_id, None)
        if container is not None:
            self._end(container, _SIGKILL_CODE)

    async def usage(self, container_id: str) -> ContainerUsage:
        container = self._container(container_id)
        age_seconds = time.time() - (container.info.started_at or time.time())
        return ContainerUsage(container.cpu_load * age_seconds, container.memory_used, time.monotonic())

    async def written_bytes(self, container_id: str) -> int:
        self._container(container_id)
        return 0

    def open_log(self, container_id: str, *, follow: bool) -> _SimulatedLog:
        return _SimulatedLog(self._container(container_id), self, follow=follow)

    def listen(self, on_exit: Callable[[str], None]) -> None:
        self._on_exit = on_exit

    async def close(self) -> None:
        self._on_exit = None

    async def shut_down(self) -> None:
        """Switches the simulated machine off: all containers end."""
        processes = [container.process for container in self._containers.values() if container.process is not None]
        for process in processes:
            process.cancel()
        if processes:
            await asyncio.wait(processes)

    def _container(self, container_id: str) -> _SimulatedContainer:
        self.check_available()
        with contextlib.suppress(KeyError):
            return self._containers[container_id]
        raise NoSuchContainer(container_id)

    def _end(self, container: _SimulatedContainer, exit_code: int) -> None:
        """By itself or by a signal."""
        if container.info.status is not ContainerStatus.RUNNING:
            return
        container.info = container.info._replace(
            status=ContainerStatus.ENDED, exit_code=exit_code, finished_at=time.time()
        )
        if container.process is not None and container.process is not asyncio.current_task():
            container.process.cancel()
        container.notify_readers()
        if self._on_exit is not None:
            self._on_exit(container.info.container_id)


def _is_missing(image: str) -> bool:
    return parse_image(image).path.startswith("missing/")
