"""What the fleet has for tasks: each worker's capacity, what is allocated of it, and why a worker gets nothing.

Capacity comes with registrations, readiness with heartbeats, drains from people, allocations from placements. The
scheduler sees all of it as offers.

Faults come with attempts that fail before their command runs. There is a circuit breaker for each worker: a fault keeps
tasks away for ``AVOIDED_SECONDS``, for twice as long each time that it is found again, up to
``LONGEST_AVOIDED_SECONDS``; then one attempt tries the worker. A container that runs heals it, and so does ``undrain``.
A full disk and an engine without an answer are the worker's own. Whether an image that cannot be pulled or a container
that cannot be created is the task's fault or the worker's, another worker tells: when the task runs there, it was the
worker's.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain
from math import inf
from typing import NamedTuple

from fleetpulse.master.tasks.placement import Offer, ResourceAmounts, satisfies
from fleetpulse.master.tasks.records import AttemptKey, Drain
from fleetpulse.master.telemetry.readings import TaskSupport
from fleetpulse.master.telemetry.records import Allocation, Registration, WorkerTelemetry

AVOIDED_SECONDS = 10.0
LONGEST_AVOIDED_SECONDS = 300.0
FORGOTTEN_AFTER_SECONDS = 3600.0
"""Without a task that tries the worker a fault is forgotten some time."""


class _Readiness(NamedTuple):
    """The part of a worker's telemetry that decides about tasks."""

    is_active: bool
    registration: Registration
    support: TaskSupport | None


class StartFailure(NamedTuple):
    """An attempt failed before its command ran."""

    reason: str
    """One of ``START_FAILURES``."""
    message: str
    time: float


class Fault(NamedTuple):
    """What is wrong with a worker, for people, and when it may be tried."""

    text: str
    times: int
    """How often it was found in a row."""
    found_at: float
    avoided_until: float
    trial: AttemptKey | None = None
    """The attempt that tries the worker."""

    @property
    def ends_at(self) -> float:
        """When it is forgotten."""
        return self.avoided_until + FORGOTTEN_AFTER_SECONDS

    def refusal(self, now: float) -> str | None:
        """Returns why the worker gets no task now, for people; ``None`` when one may try it."""
        if now < self.avoided_until:
            return f"it is degraded: {self.text}"
        return None if self.trial is None else f"one task tries it, because it was degraded: {self.text}"


class WorkerFaults:
    """The faults by worker."""

    def __init__(self) -> None:
        self._faults: dict[str, Fault] = {}
        self._started_at: dict[str, float] = {}

    def get(self, worker_id: str) -> Fault | None:
        return self._faults.get(worker_id)

    def found(self, worker_id: str, failure: StartFailure, now: float) -> None:
        """The failure was the worker's. One that is older than the last good start or the last fault says nothing."""
        known = self._faults.get(worker_id)
        if failure.time <= self._started_at.get(worker_id, -inf):
            return
        if known is not None and (failure.time <= known.found_at or now < known.avoided_until):
            return
        times = 1 if known is None else known.times + 1
        seconds = min(AVOIDED_SECONDS * 2.0 ** min(times - 1, 10), LONGEST_AVOIDED_SECONDS)
        text = f"{failure.reason}: {failure.message}" if failure.message else failure.reason
        self._faults[worker_id] = Fault(text, times, now, now + seconds)

    def started(self, worker_id: str, now: float) -> bool:
        """A container runs there. Returns whether there was a fault."""
        self._started_at[worker_id] = now
        return self.healed(worker_id)

    def healed(self, worker_id: str) -> bool:
        """Somebody says that it is well. Returns whether there was a fault."""
        return self._faults.pop(worker_id, None) is not None

    def forget(self, worker_id: str) -> None:
        """The worker has left."""
        self._faults.pop(worker_id, None)
        self._started_at.pop(worker_id, None)

    def assigned(self, worker_id: str, key: AttemptKey) -> None:
        """The worker was given this attempt."""
        if (fault := self._faults.get(worker_id)) is not None and fault.trial is None:
            self._faults[worker_id] = fault._replace(trial=key)

    def ended(self, worker_id: str, key: AttemptKey) -> None:
        """The attempt has ended; without a verdict another one may try the worker."""
        if (fault := self._faults.get(worker_id)) is not None and fault.trial == key:
            self._faults[worker_id] = fault._replace(trial=None)

    def due(self, before: float, now: float) -> Sequence[str]:
        """Returns the workers of which more is allowed at ``now`` than at ``before``. Forgets old faults."""
        old = [worker_id for worker_id, fault in self._faults.items() if fault.ends_at <= now]
        for worker_id in old:
            del self._faults[worker_id]
        return old + [worker_id for worker_id, fault in self._faults.items() if before < fault.avoided_until <= now]


class FleetCapacity:
    """Changes as it is told; ``offers`` returns a snapshot."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._faults = WorkerFaults()
        self._faults_checked_at = monotonic()
        self._readiness: dict[str, _Readiness] = {}
        self._connected: set[str] = set()
        self._drains: dict[str, Drain] = {}
        self._held: defaultdict[str, dict[AttemptKey, tuple[ResourceAmounts, Sequence[str]]]] = defaultdict(dict)
        self._offers: dict[str, Offer] = {}
        self.revision = 0
        """Grows with every change of an offer."""

    def observe(self, telemetry: WorkerTelemetry) -> bool:
        """Takes a worker's telemetry in; returns whether it changed the worker's offer. Cheap when it did not."""
        # Mostly the same objects as last time, which compare by identity.
        readiness = _Readiness(telemetry.is_active, telemetry.registration, telemetry.task_support)
        if self._readiness.get(telemetry.worker_id) == readiness:
            return False
        self._readiness[telemetry.worker_id] = readiness
        self._update_offer(telemetry.worker_id)
        return True

    def forget(self, worker_id: str) -> None:
        """The worker has left. What its attempts hold is held until they end."""
        self._readiness.pop(worker_id, None)
        self._offers.pop(worker_id, None)
        self._faults.forget(worker_id)
        self.revision += 1

    def allocate(self, worker_id: str, key: AttemptKey, demand: ResourceAmounts, gpu_uuids: tuple[str, ...]) -> None:
        """The attempt holds this until it is released."""
        self._held[worker_id][key] = demand, gpu_uuids
        self._faults.assigned(worker_id, key)
        self._update_offer(worker_id)

    def release(self, worker_id: str, key: AttemptKey) -> None:
        """The attempt holds nothing any more."""
        self._held[worker_id].pop(key, None)
        self._faults.ended(worker_id, key)
        if not self._held[worker_id]:
            del self._held[worker_id]
        self._update_offer(worker_id)

    def set_connected(self, worker_id: str, *, is_connected: bool) -> None:
        """Whether messages reach the worker now."""
        if is_connected:
            self._connected.add(worker_id)
        else:
            self._connected.discard(worker_id)
        self._update_offer(worker_id)

    def set_drain(self, worker_id: str, drain: Drain | None) -> None:
        """Begins a drain, or ends it (``None``)."""
        if drain is None:
            self._drains.pop(worker_id, None)
            self._faults.healed(worker_id)
        else:
            self._drains[worker_id] = drain
        self._update_offer(worker_id)

    def drain_of(self, worker_id: str) -> Drain | None:
        return self._drains.get(worker_id)

    def start_failed(self, worker_id: str, failure: StartFailure) -> None:
        """An attempt failed on the worker before its command ran, and that is the worker's fault."""
        self._faults.found(worker_id, failure, self._monotonic())
        self._update_offer(worker_id)

    def started(self, worker_id: str) -> bool:
        """A container runs on the worker. Returns whether that heals it."""
        is_healed = self._faults.started(worker_id, self._monotonic())
        if is_healed:
            self._update_offer(worker_id)
        return is_healed

    def check_faults(self) -> Sequence[str]:
        """Returns the degraded workers that may be tried now, each once."""
        now = self._monotonic()
        due, self._faults_checked_at = self._faults.due(self._faults_checked_at, now), now
        for worker_id in due:
            self._update_offer(worker_id)
        return due

    def has_other(
        self, demand: ResourceAmounts, constraints: Mapping[str, tuple[str, ...]], tried: Collection[str]
    ) -> bool:
        """Whether a worker that takes tasks, other than those, could hold this if it were idle."""
        return any(
            offer.refusal is None
            and demand.fits_into(offer.total)
            and worker_id not in tried
            and satisfies(offer, constraints)
            for worker_id, offer in self._offers.items()
        )

    def offers(self) -> Sequence[Offer]:
        """Returns every worker's, with those that take nothing now: they explain why a task waits."""
        return tuple(self._offers.values())

    def offer_of(self, worker_id: str) -> Offer | None:
        return self._offers.get(worker_id)

    def allocation(self, worker_id: str) -> Allocation:
        """Returns what the worker's live attempts hold, and why it gets no more."""
        taken, gpu_uuids = self._taken(worker_id)
        offer, drain, fault = self._offers.get(worker_id), self._drains.get(worker_id), self._faults.get(worker_id)
        return Allocation(
            cpu_cores=taken.cpu_millicores / 1000,
            memory_bytes=taken.memory_bytes,
            gpu_uuids=gpu_uuids,
            tasks=len(self._held.get(worker_id, ())),
            refusal=None if offer is None else offer.refusal,
            drain_reason=None if drain is None else drain.reason,
            degraded_reason=None if fault is None else fault.text,
        )

    def _taken(self, worker_id: str) -> tuple[ResourceAmounts, tuple[str, ...]]:
        held = self._held.get(worker_id)
        if not held:
            return ResourceAmounts(0, 0, 0), ()
        demands, gpu_uuids = zip(*held.values(), strict=True)
        return ResourceAmounts(*map(sum, zip(*demands, strict=True))), tuple(sorted(chain.from_iterable(gpu_uuids)))

    def _update_offer(self, worker_id: str) -> None:
        self.revision += 1
        readiness = self._readiness.get(worker_id)
        if readiness is None:
            return
        capacity, (taken, taken_gpus) = readiness.registration.capacity, self._taken(worker_id)
        free_gpu_uuids = tuple(uuid for uuid in capacity.gpu_uuids if uuid not in taken_gpus)
        total = ResourceAmounts(
            round((capacity.cpu_cores or 0.0) * 1000), capacity.memory_bytes or 0, len(capacity.gpu_uuids)
        )
        self._offers[worker_id] = Offer(
            worker_id=worker_id,
            labels=readiness.registration.labels,
            total=total,
            free=total.minus(taken)._replace(gpus=len(free_gpu_uuids)),
            gpu_uuids=capacity.gpu_uuids,
            free_gpu_uuids=free_gpu_uuids,
            refusal=self._refusal(worker_id, readiness),
        )

    def _refusal(self, worker_id: str, readiness: _Readiness) -> str | None:
        if not readiness.is_active:
            return "it is inactive"
        drain = self._drains.get(worker_id)
        if drain is not None:
            return f"it is drained: {drain.reason}" if drain.reason else "it is drained"
        if readiness.support is None:
            return "it only reports telemetry"
        if worker_id not in self._connected:
            return "its connection is broken"
        if not readiness.support.available:
            return readiness.support.reason or "it cannot run tasks"
        fault = self._faults.get(worker_id)
        return None if fault is None else fault.refusal(self._monotonic())
