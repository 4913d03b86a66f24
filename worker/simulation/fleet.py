"""Many simulated machines in one process, each with its own session and connection. Some of them fail:

none     sends heartbeats until the end and says goodbye
stall    keeps its connection and sends no heartbeat for a while, again and again
vanish   is cut off without a goodbye, once, and does not return
flap     is cut off without a goodbye and returns as a new incarnation, again and again
"""

import asyncio
import itertools
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum, auto
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.connection import OpenChannel
from fleetpulse.worker.identity import new_incarnation_id
from fleetpulse.worker.session import WorkerSession
from fleetpulse.worker.simulation.connections import SharedConnections
from fleetpulse.worker.simulation.engine import SimulatedEngine
from fleetpulse.worker.simulation.machine import SimulatedMachine
from fleetpulse.worker.simulation.site import SimulatedSite
from fleetpulse.worker.simulation.status import CONNECTING, CUT_OFF, NOT_STARTED, FleetStatus, Reason, group_waiting
from fleetpulse.worker.tasks.engine import wait_for_event
from fleetpulse.worker.tasks.executor import Executor

if TYPE_CHECKING:
    from fleetpulse.worker.credentials.renewer import CertificateRenewer

_RESYNC_SECONDS = 60.0
"""A simulated engine misses no exit."""


_MIN_RAMP_SECONDS = 5.0
_ARRIVALS_PER_SECOND = 400.0
"""More at a time is a storm, which ``--ramp 0`` gives."""


class FailureMode(Enum):
    NONE = auto()
    STALL = auto()
    VANISH = auto()
    FLAP = auto()


class SimulationConfig(NamedTuple):
    """Times in seconds."""

    master: str
    workers: int
    prefix: str = "sim"
    gpu_share: float = 0.25
    gpus_per_machine: int = 2
    stall: int = 0
    vanish: int = 0
    flap: int = 0
    trouble_after_seconds: float = 30.0
    trouble_seconds: float = 45.0
    ramp_seconds: float | None = None
    """``None``: as long as a fleet of this size takes, see ``ramp``."""
    streams_per_connection: int = 1
    batch: int | None = None
    """How many machines an agent reports for on one stream; ``None``: each has its own."""
    seed: int = 1
    runs_tasks: bool = True
    custom_samples: int = 0
    """Samples of custom metrics in each heartbeat of each machine."""

    @property
    def ramp(self) -> float:
        """The time over which the machines come up, as asked for or else by their number."""
        usual = max(_MIN_RAMP_SECONDS, self.workers / _ARRIVALS_PER_SECOND)
        return usual if self.ramp_seconds is None else self.ramp_seconds

    @property
    def streams(self) -> int:
        """How many the fleet opens."""
        return math.ceil(self.workers / (self.batch or 1))

    @property
    def connections(self) -> int:
        """How many the fleet opens."""
        return math.ceil(self.streams / self.streams_per_connection)

    def worker_ids(self) -> list[str]:
        digits = len(str(self.workers))
        return [f"{self.prefix}-{number:0{digits}d}" for number in range(1, self.workers + 1)]

    def failure_modes(self) -> Iterator[FailureMode]:
        """One per worker. Failing workers come first, so that their ids are easy to find."""
        yield from [FailureMode.STALL] * self.stall
        yield from [FailureMode.VANISH] * self.vanish
        yield from [FailureMode.FLAP] * self.flap
        yield from [FailureMode.NONE] * (self.workers - self.stall - self.vanish - self.flap)

    def machines(self, now: float) -> Iterator[SimulatedMachine]:
        """In the order of the ids. Those with GPUs are spread evenly."""
        for number, worker_id in enumerate(self.worker_ids(), start=1):
            has_gpus = int(number * self.gpu_share) > int((number - 1) * self.gpu_share)
            gpu_count = self.gpus_per_machine if has_gpus else 0
            yield SimulatedMachine(worker_id, gpu_count, self.seed, now, self.custom_samples)


class _Member(Protocol):
    """What the fleet needs of a simulated worker, or of a site with many."""

    @property
    def heartbeats_sent(self) -> int: ...

    def reasons(self) -> list[Reason]:
        """Why each is not connected."""

    def stop(self) -> None:
        """Says goodbye."""

    async def run(self) -> None:
        """Runs until ``stop``."""


class _SimulatedWorker:
    """A machine, its session and its failures."""

    def __init__(
        self,
        config: SimulationConfig,
        machine: SimulatedMachine,
        mode: FailureMode,
        version: str,
        credentials: "CertificateRenewer | None",
        open_channel: OpenChannel,
    ) -> None:
        self._open_channel = open_channel
        self._config = config
        self._credentials = credentials
        self._machine = machine
        self._mode = mode
        self._version = version
        self._rng = random.Random(f"{config.seed}-{machine.worker_id}-fate")  # nosec B311 # chance without a secret
        self._stalled_until = 0.0
        self._stopping = asyncio.Event()
        self._session: WorkerSession | None = None
        self._has_started = False
        self._sent_before = 0
        # Belongs to the machine, so it outlives every incarnation of its worker.
        self._engine = SimulatedEngine(random.Random(f"{config.seed}-{machine.worker_id}-tasks"))  # nosec B311 # chance without a secret

    def reasons(self) -> list[Reason]:
        """Why it is not connected, as one of one."""
        if self._session is None:
            return [CUT_OFF if self._has_started else NOT_STARTED]
        return [None if self._session.is_connected else self._session.failure or CONNECTING]

    @property
    def heartbeats_sent(self) -> int:
        return self._sent_before + (self._session.heartbeats_sent if self._session else 0)

    def stop(self) -> None:
        """Says goodbye if it is connected, and does not return if it is not."""
        self._stopping.set()
        if self._session is not None:
            self._session.stop("the simulation ends")

    async def run(self) -> None:
        if await wait_for_event(self._stopping, self._rng.uniform(0.0, self._config.ramp)):
            return
        try:
            while True:
                await self._run_incarnation()
                if self._mode is FailureMode.NONE or await wait_for_event(self._stopping, self._outage_seconds()):
                    return
        finally:
            await self._engine.shut_down()

    async def _run_incarnation(self) -> None:
        executor = Executor(self._engine, resync_seconds=_RESYNC_SECONDS) if self._config.runs_tasks else None
        self._has_started = True
        self._session = WorkerSession(
            self._config.master,
            self._machine.register(new_incarnation_id(), self._version),
            self._sample,
            random.Random(self._rng.random()),  # nosec B311 # chance without a secret
            executor,
            self._credentials,
            self._open_channel,
        )
        if executor is not None:
            executor.start()
        running = asyncio.ensure_future(self._session.run())
        try:
            await self._wait_for_failure(running)
        finally:
            # Cut off without a goodbye, like a machine that lost its power or its network.
            running.cancel()
            await asyncio.wait({running})
            if executor is not None:
                await executor.close()
        self._sent_before += self._session.heartbeats_sent
        self._session = None

    def _outage_seconds(self) -> float | None:
        """How long it stays away; ``None`` for ever."""
        if self._mode is FailureMode.VANISH:
            return None
        return self._config.trouble_seconds * self._rng.uniform(0.5, 1.5)

    async def _wait_for_failure(self, running: "asyncio.Future[None]") -> None:
        """Returns when the worker is to be cut off, or when the session has ended."""
        while not running.done():
            if self._mode is FailureMode.NONE:
                await asyncio.wait({running})
                running.result()
                return
            await asyncio.wait({running}, timeout=self._config.trouble_after_seconds * self._rng.uniform(0.7, 1.3))
            if self._mode is not FailureMode.STALL:
                return
            self._stalled_until = time.monotonic() + self._config.trouble_seconds
            await asyncio.wait({running}, timeout=self._config.trouble_seconds)

    async def _sample(self) -> pb.Heartbeat:
        # A stall is a sampler that does not return.
        stalled_seconds = self._stalled_until - time.monotonic()
        if stalled_seconds > 0.0:
            await wait_for_event(self._stopping, stalled_seconds)
        return self._machine.sample(time.time())


class SimulatedFleet:
    """Runs a simulation on the current asyncio loop."""

    def __init__(
        self,
        config: SimulationConfig,
        version: str,
        credentials: "Mapping[str, CertificateRenewer]" = MappingProxyType({}),
    ) -> None:
        """``credentials`` by worker id; connections without them are not encrypted."""
        connections = SharedConnections(config.streams_per_connection)
        self._workers: Sequence[_Member] = list(
            _sites(config, version, connections)
            if config.batch
            else _workers(config, version, connections, credentials)
        )
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.ensure_future(worker.run()) for worker in self._workers]

    async def stop(self, timeout_seconds: float) -> None:
        """Lets every connected worker say goodbye; cuts off the rest after the timeout."""
        for worker in self._workers:
            worker.stop()
        await asyncio.wait(self._tasks, timeout=timeout_seconds)
        self.cut_off()
        await asyncio.wait(self._tasks)

    def cut_off(self) -> None:
        """Ends every worker without a goodbye."""
        for task in self._tasks:
            task.cancel()

    def status(self) -> FleetStatus:
        reasons = [reason for worker in self._workers for reason in worker.reasons()]
        return FleetStatus(
            workers=len(reasons),
            connected=reasons.count(None),
            heartbeats_sent=sum(worker.heartbeats_sent for worker in self._workers),
            waiting=tuple(group_waiting(reasons)),
        )


def _workers(
    config: SimulationConfig,
    version: str,
    connections: SharedConnections,
    credentials: "Mapping[str, CertificateRenewer]",
) -> Iterator[_SimulatedWorker]:
    machines = zip(config.machines(time.time()), config.failure_modes(), strict=True)
    for number, (machine, mode) in enumerate(machines):
        renewer = credentials.get(machine.worker_id)
        yield _SimulatedWorker(config, machine, mode, version, renewer, connections.opener(number))


def _sites(config: SimulationConfig, version: str, connections: SharedConnections) -> Iterator[SimulatedSite]:
    machines = config.machines(time.time())
    for number in range(config.streams):
        rng = random.Random(f"{config.seed}-{number}-site")  # nosec B311 # chance without a secret
        yield SimulatedSite(
            config.master, list(itertools.islice(machines, config.batch)), version, rng, config.ramp,
            connections.opener(number),
        )  # fmt: skip
