"""Containers that are not there: ``tasks.engine.ContainerEngine`` in memory, on the clock of the asyncio loop.

It outlives the executors that use it, as Docker outlives a worker, so that a simulated worker can be cut off and find
its containers again. Tests steer it: ``is_away``, ``images`` and the commands that ``simulation.script`` understands.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Sequence

from fleetpulse.proto.image import normalised
from fleetpulse.worker.simulation.script import script_of
from fleetpulse.worker.tasks.engine import (
    AttemptKey,
    Container,
    ContainerSpec,
    EngineRefused,
    EngineUnavailable,
    NoSuchContainer,
    Progress,
    Status,
    Usage,
)

_SIGTERM_CODE, _SIGKILL_CODE = 143, 137


class _SimulatedContainer:
    """One container and what it has written."""

    def __init__(self, container_id: str, spec: ContainerSpec, rng: random.Random) -> None:
        self.state = Container(
            container_id, spec.key, Status.CREATED, memory_bytes=spec.memory_bytes,
            timeout_seconds=spec.timeout_seconds, log_limit_bytes=spec.log_limit_bytes,
        )  # fmt: skip
        self.output = bytearray()
        self.readers: set[_SimulatedLog] = set()
        self.cpu_load = spec.cpu_cores * rng.uniform(0.3, 0.95)
        self.memory_used = int(spec.memory_bytes * rng.uniform(0.2, 0.8))
        self.script = script_of(spec.command, rng)
        self.process: asyncio.Task[None] | None = None

    async def run(self, ended: Callable[[int], None]) -> None:
        """Carry out its script."""
        for step in self.script.steps:
            self.output += step.output
            self.tell_readers()
            if step.seconds:
                await asyncio.sleep(step.seconds)
            if step.exit_code is not None:
                ended(step.exit_code)
                return
        ended(0)

    def tell_readers(self) -> None:
        """There is something to read, or an end."""
        for reader in self.readers:
            reader.something.set()


class _SimulatedLog:
    """``tasks.engine.LogStream`` of one simulated container."""

    def __init__(self, container: _SimulatedContainer, engine: "SimulatedEngine", *, follow: bool) -> None:
        self.something = asyncio.Event()
        self._container = container
        self._engine = engine
        self._follow = follow
        self._position = 0
        self._is_closed = False
        container.readers.add(self)

    async def read(self) -> bytes:
        """See ``LogStream``."""
        while not self._is_closed:
            self._engine.answer()
            data = bytes(self._container.output[self._position :])
            self._position += len(data)
            if data or not self._follow or self._container.state.status is Status.ENDED:
                return data
            self.something.clear()
            await self.something.wait()
        return b""

    def close(self) -> None:
        """See ``LogStream``."""
        self._is_closed = True
        self._container.readers.discard(self)
        self.something.set()


class SimulatedEngine:
    """For one worker, over all its incarnations. All methods belong to one asyncio loop."""

    def __init__(self, rng: random.Random, images: set[str] | None = None, pull_seconds: float = 0.0) -> None:
        """``images``: those that need no pull; ``None``: all. What lies below ``missing/`` no registry has."""
        self.images = images
        self.is_away = False
        """It answers nothing, as Docker does while it is started anew. Containers go on."""
        self.pulls: list[str] = []
        self.starts: list[AttemptKey] = []
        self._rng = rng
        self._pull_seconds = pull_seconds
        self._containers: dict[str, _SimulatedContainer] = {}
        self._listener: Callable[[str], None] | None = None

    def answer(self) -> None:
        """Raise ``EngineUnavailable`` while it is away."""
        if self.is_away:
            raise EngineUnavailable("the simulated engine is away")

    async def containers(self) -> Sequence[Container]:
        self.answer()
        return [container.state for container in self._containers.values()]

    async def has_image(self, image: str) -> bool:
        self.answer()
        return not _is_missing(image) and (self.images is None or image in self.images)

    async def pull(self, image: str, progress: Progress) -> None:
        self.answer()
        self.pulls.append(image)
        progress(f"pulling {image}: 0 of 1 layers")
        await asyncio.sleep(self._pull_seconds)
        self.answer()
        if _is_missing(image):
            raise EngineRefused(f"no registry gives {image}", "image_not_found")
        if self.images is not None:
            self.images.add(image)

    async def create(self, spec: ContainerSpec) -> str:
        self.answer()
        for container_id, container in self._containers.items():
            if container.state.key == spec.key:
                return container_id
        container_id = f"{self._rng.getrandbits(256):064x}"
        self._containers[container_id] = _SimulatedContainer(container_id, spec, self._rng)
        return container_id

    async def start(self, container_id: str) -> None:
        container = self._container(container_id)
        if container.state.status is Status.CREATED:
            self.starts.append(container.state.key)
            container.state = container.state._replace(status=Status.RUNNING, started_at=time.time())
            process = container.run(lambda code: self._end(container, code))
            container.process = asyncio.create_task(process, name=f"container {container_id[:12]}")

    async def inspect(self, container_id: str) -> Container:
        return self._container(container_id).state

    async def signal(self, container_id: str, name: str) -> bool:
        container = self._container(container_id)
        if container.state.status is not Status.RUNNING:
            return False
        if name == "SIGKILL":
            self._end(container, _SIGKILL_CODE)
        elif not container.script.ignores_sigterm:
            self._end(container, _SIGTERM_CODE)
        return True

    async def remove(self, container_id: str) -> None:
        self.answer()
        container = self._containers.pop(container_id, None)
        if container is not None and container.state.status is Status.RUNNING:
            self._end(container, _SIGKILL_CODE)

    async def usage(self, container_id: str) -> Usage:
        container = self._container(container_id)
        lived = time.time() - (container.state.started_at or time.time())
        return Usage(container.cpu_load * lived, container.memory_used, time.monotonic())

    def open_log(self, container_id: str, *, follow: bool) -> _SimulatedLog:
        return _SimulatedLog(self._container(container_id), self, follow=follow)

    def listen(self, changed: Callable[[str], None]) -> None:
        self._listener = changed

    async def close(self) -> None:
        self._listener = None

    async def shut_down(self) -> None:
        """End all containers: the simulated machine is switched off."""
        processes = [container.process for container in self._containers.values() if container.process is not None]
        for process in processes:
            process.cancel()
        if processes:
            await asyncio.wait(processes)

    def _container(self, container_id: str) -> _SimulatedContainer:
        self.answer()
        with contextlib.suppress(KeyError):
            return self._containers[container_id]
        raise NoSuchContainer(container_id)

    def _end(self, container: _SimulatedContainer, exit_code: int) -> None:
        """It has ended by itself or by a signal."""
        if container.state.status is not Status.RUNNING:
            return
        container.state = container.state._replace(status=Status.ENDED, exit_code=exit_code, finished_at=time.time())
        if container.process is not None and container.process is not asyncio.current_task():
            container.process.cancel()
        container.tell_readers()
        if self._listener is not None:
            self._listener(container.state.container_id)


def _is_missing(image: str) -> bool:
    return normalised(image).path.startswith("missing/")
