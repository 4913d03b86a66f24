"""What a worker registers of its machine: cores, memory and the GPUs that answer."""

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

import psutil

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.cleaning import make
from fleetpulse.worker.collectors.gpu import GpuCollector, GpuInventory
from fleetpulse.worker.session import Sample, TaskExecutor

_LOGGER = logging.getLogger(__name__)

_T = TypeVar("_T")

STEADY_ROUNDS = 3
"""A change of the GPUs is registered when so many readings in a row show it: each registration opens a new stream."""


def machine_capacity(
    gpus: GpuInventory | None = None,
    *,
    logical_cores: Callable[[], int | None] = psutil.cpu_count,
    memory_bytes: Callable[[], int] = lambda: psutil.virtual_memory().total,
) -> pb.Capacity:
    """The capacity of this machine, in a container of its host. An unknown part is absent; raises nothing.

    A GPU without a UUID cannot be given to a task, and is left out of ``gpu_uuids``.
    """
    capacity = make(pb.Capacity, cpu_cores=_attempt(logical_cores), memory_bytes=_attempt(memory_bytes))
    if gpus is not None:
        _set_gpus(capacity, gpus)
    return capacity


class GpuRegistration:
    """Keeps the GPUs of ``capacity`` as they are. Belongs to one asyncio loop.

    A driver that wakes its devices up takes seconds, which a registration does not wait for; a GPU that is lost later
    must get no new tasks.
    """

    def __init__(self, capacity: pb.Capacity) -> None:
        self._capacity = capacity
        self._changed = asyncio.Event()
        self._seen: GpuInventory | None = None
        self._rounds = 0
        self.registered = GpuInventory(capacity.gpu_count, tuple(capacity.gpu_uuids))
        """What ``capacity`` has; not meaningful while that has no number."""
        self.is_steady = capacity.HasField("gpu_count")
        """Whether a reading that finds what is registered changes nothing, and need not be observed."""

    def observe(self, gpus: GpuInventory | None) -> None:
        """Takes in what the latest reading found; ``None`` when it is not known now."""
        is_known = self._capacity.HasField("gpu_count")
        if gpus is None or (is_known and gpus == self.registered):
            self._rounds, self.is_steady = 0, is_known
            return
        self._rounds = self._rounds + 1 if gpus == self._seen else 1
        self._seen, self.is_steady = gpus, False
        if self._rounds >= STEADY_ROUNDS or not is_known:
            _LOGGER.info("the GPUs of this machine have changed: %d answer", gpus.number)
            _set_gpus(self._capacity, gpus)
            self.registered, self.is_steady = gpus, True
            self._rounds = 0
            self._changed.set()

    async def changed(self) -> None:
        """Waits until ``capacity`` has changed since it was sent."""
        await self._changed.wait()

    def sent(self) -> None:
        """A registration has ``capacity`` as it is."""
        self._changed.clear()


def observing_gpus(sample: Sample, gpu: GpuCollector, registration: GpuRegistration) -> Sample:
    """Returns ``sample`` with a look at the GPUs that each reading found."""

    async def sample_and_observe() -> pb.Heartbeat:
        heartbeat = await sample()
        if not (registration.is_steady and gpu.inventory == registration.registered):
            registration.observe(gpu.inventory)
        return heartbeat

    return sample_and_observe


class GpuAwareTasks:
    """What a session does with tasks, and what it says about GPUs: a drained worker lets go of them, so that one can be
    reset, and a change of them is registered. On the session's loop.
    """

    def __init__(self, tasks: TaskExecutor, gpu: GpuCollector, registration: GpuRegistration) -> None:
        self._tasks, self._gpu, self._registration = tasks, gpu, registration
        # Nothing of GPUs is in these.
        self.disconnected, self.next_message, self.report = tasks.disconnected, tasks.next_message, tasks.report

    async def describe(self, register: pb.Register) -> None:
        self._registration.sent()
        await self._tasks.describe(register)

    def registered(self, registered: pb.Registered) -> None:
        self._gpu.release(is_released=registered.draining)
        self._tasks.registered(registered)

    async def must_register_again(self) -> None:
        """Waits for the attempts or the GPUs to change."""
        changes = self._tasks.must_register_again(), self._registration.changed()
        waits = [asyncio.ensure_future(change) for change in changes]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            done.pop().result()
        finally:
            for wait in waits:
                wait.cancel()

    def receive(self, message: pb.MasterMessage) -> None:
        if message.HasField("drain"):
            self._gpu.release(is_released=message.drain.draining)
        self._tasks.receive(message)


def _set_gpus(capacity: pb.Capacity, gpus: GpuInventory) -> None:
    capacity.gpu_count = gpus.number
    capacity.gpu_uuids[:] = gpus.uuids


def _attempt(read: Callable[[], _T]) -> _T | None:
    try:
        return read()
    except OSError as exc:
        _LOGGER.warning("a part of the machine's capacity is unknown: %s", exc)
        return None
