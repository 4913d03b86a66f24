"""N simulated machines in one process, each with a session and a connection of its own; some of them misbehave.

steady   beats until the end and says goodbye
stall    keeps its connection and stops beating for a while, again and again
vanish   is cut off without a goodbye, once, and stays away
flap     is cut off without a goodbye and comes back as a new incarnation, again and again
"""

import asyncio
import random
import time
from collections.abc import Iterator, Mapping
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.identity import new_incarnation_id
from fleetpulse.worker.session import WorkerSession
from fleetpulse.worker.simulation.engine import SimulatedEngine
from fleetpulse.worker.simulation.machine import SimulatedMachine
from fleetpulse.worker.tasks.executor import Executor

if TYPE_CHECKING:
    from fleetpulse.worker.credentials.renewer import CertificateRenewer

_ROUND_SECONDS = 60.0
"""A simulated engine tells every end by itself."""


class Behaviour(Enum):
    STEADY = "steady"
    STALL = "stall"
    VANISH = "vanish"
    FLAP = "flap"


class FleetPlan(NamedTuple):
    """What to simulate. Times in seconds."""

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
    ramp_seconds: float = 5.0
    seed: int = 1
    runs_tasks: bool = True
    own_samples: int = 0
    """Of own metrics, in each heartbeat of each machine."""

    def worker_ids(self) -> list[str]:
        """Of the machines, in order."""
        digits = len(str(self.workers))
        return [f"{self.prefix}-{number:0{digits}d}" for number in range(1, self.workers + 1)]

    def behaviours(self) -> Iterator[Behaviour]:
        """One a worker: the troubled ones come first, so that their ids are easy to find."""
        yield from [Behaviour.STALL] * self.stall + [Behaviour.VANISH] * self.vanish + [Behaviour.FLAP] * self.flap
        yield from [Behaviour.STEADY] * (self.workers - self.stall - self.vanish - self.flap)


class FleetState(NamedTuple):
    """How the fleet is doing."""

    workers: int
    connected: int
    heartbeats_sent: int


class _SimulatedWorker:
    """One machine, its session, and what befalls it."""

    def __init__(
        self,
        plan: FleetPlan,
        machine: SimulatedMachine,
        behaviour: Behaviour,
        version: str,
        credentials: "CertificateRenewer | None",
    ) -> None:
        self._plan = plan
        self._credentials = credentials
        self._machine = machine
        self._behaviour = behaviour
        self._version = version
        self._rng = random.Random(f"{plan.seed}-{machine.worker_id}-fate")  # nosec B311 # chance without a secret
        self._stalled_until = 0.0
        self._ending = asyncio.Event()
        self._session: WorkerSession | None = None
        self._sent_before = 0
        # The machine's, and so older than any incarnation of its worker.
        self._engine = SimulatedEngine(random.Random(f"{plan.seed}-{machine.worker_id}-tasks"))  # nosec B311 # chance without a secret

    @property
    def is_connected(self) -> bool:
        return self._session is not None and self._session.is_connected

    @property
    def heartbeats_sent(self) -> int:
        return self._sent_before + (self._session.heartbeats_sent if self._session else 0)

    def stop(self) -> None:
        """End this worker: with a goodbye if it is connected, and without coming back if it is not."""
        self._ending.set()
        if self._session is not None:
            self._session.stop("the simulation ends")

    async def live(self) -> None:
        """Until the simulation ends."""
        if await self._ends_within(self._rng.uniform(0.0, self._plan.ramp_seconds)):
            return
        try:
            while True:
                await self._live_once()
                if self._behaviour is Behaviour.STEADY or await self._ends_within(self._absence_seconds()):
                    return
        finally:
            await self._engine.shut_down()

    async def _live_once(self) -> None:
        """One incarnation."""
        executor = Executor(self._engine, round_seconds=_ROUND_SECONDS) if self._plan.runs_tasks else None
        self._session = WorkerSession(
            self._plan.master,
            self._machine.register(new_incarnation_id(), self._version),
            self._sample,
            random.Random(self._rng.random()),  # nosec B311 # chance without a secret
            executor,
            self._credentials,
        )
        if executor is not None:
            executor.open()
        life = asyncio.ensure_future(self._session.run())
        try:
            await self._suffer(life)
        finally:
            # Cut off, without a word: as a machine that lost its power, or its network.
            life.cancel()
            await asyncio.wait({life})
            if executor is not None:
                await executor.close()
        self._sent_before += self._session.heartbeats_sent
        self._session = None

    def _absence_seconds(self) -> float | None:
        """How long it stays away once it is cut off; ``None`` for ever."""
        if self._behaviour is Behaviour.VANISH:
            return None
        return self._plan.trouble_seconds * self._rng.uniform(0.5, 1.5)

    async def _ends_within(self, seconds: float | None) -> bool:
        """Wait; whether the simulation ended meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await self._ending.wait()
        except TimeoutError:
            return False
        return True

    async def _suffer(self, life: "asyncio.Future[None]") -> None:
        """Return when it is time to be cut off, or when the session has ended by itself."""
        while not life.done():
            if self._behaviour is Behaviour.STEADY:
                await asyncio.wait({life})
                life.result()
                return
            await asyncio.wait({life}, timeout=self._plan.trouble_after_seconds * self._rng.uniform(0.7, 1.3))
            if self._behaviour is not Behaviour.STALL:
                return
            self._stalled_until = time.monotonic() + self._plan.trouble_seconds
            await asyncio.wait({life}, timeout=self._plan.trouble_seconds)

    async def _sample(self) -> pb.Heartbeat:
        # A sampler that does not return is what a stall looks like to the session.
        stalled_seconds = self._stalled_until - time.monotonic()
        if stalled_seconds > 0.0:
            await self._ends_within(stalled_seconds)
        return self._machine.sample(time.time())


class SimulatedFleet:
    """Runs a plan on the current asyncio loop."""

    def __init__(
        self, plan: FleetPlan, version: str, keepers: "Mapping[str, CertificateRenewer]" = MappingProxyType({})
    ) -> None:
        """``keepers`` are the certificates by worker id; without them connections are not encrypted."""
        now = time.time()
        self._workers = [
            _SimulatedWorker(
                plan, self._machine(plan, number, worker_id, now), behaviour, version, keepers.get(worker_id)
            )
            for number, (worker_id, behaviour) in enumerate(
                zip(plan.worker_ids(), plan.behaviours(), strict=True), start=1
            )
        ]
        self._lives: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Let every worker live."""
        self._lives = [asyncio.ensure_future(worker.live()) for worker in self._workers]

    async def stop(self, timeout_seconds: float) -> None:
        """Let every connected worker say goodbye; cut off what is left after the timeout."""
        for worker in self._workers:
            worker.stop()
        await asyncio.wait(self._lives, timeout=timeout_seconds)
        self.cut_off()
        await asyncio.wait(self._lives)

    def cut_off(self) -> None:
        """End every worker without a goodbye."""
        for life in self._lives:
            life.cancel()

    def state(self) -> FleetState:
        """How the fleet is doing now."""
        return FleetState(
            workers=len(self._workers),
            connected=sum(worker.is_connected for worker in self._workers),
            heartbeats_sent=sum(worker.heartbeats_sent for worker in self._workers),
        )

    @staticmethod
    def _machine(plan: FleetPlan, number: int, worker_id: str, now: float) -> SimulatedMachine:
        # Every n-th machine has GPUs, so that the share holds for any number of machines.
        has_gpus = int(number * plan.gpu_share) > int((number - 1) * plan.gpu_share)
        gpu_count = plan.gpus_per_machine if has_gpus else 0
        return SimulatedMachine(worker_id, gpu_count, plan.seed, now, plan.own_samples)
