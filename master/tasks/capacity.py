"""What the fleet has for tasks: each worker's capacity, what is allocated of it, and why a worker gets nothing.

Capacity comes with registrations, readiness with heartbeats, drains from people, allocations from placements. The
scheduler sees all of it as offers.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from fleetpulse.master.tasks.placement import Offer, ResourceAmounts
from fleetpulse.master.tasks.records import AttemptKey, Drain
from fleetpulse.master.telemetry.records import Allocation, Registration, TaskSupport, WorkerTelemetry


class _Readiness(NamedTuple):
    """The part of a worker's telemetry that decides about tasks."""

    is_active: bool
    registration: Registration
    support: TaskSupport | None


class FleetCapacity:
    """Changes as it is told; ``offers`` returns a snapshot."""

    def __init__(self) -> None:
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
        self.revision += 1

    def allocate(self, worker_id: str, key: AttemptKey, demand: ResourceAmounts, gpu_uuids: tuple[str, ...]) -> None:
        """The attempt holds this until it is released."""
        self._held[worker_id][key] = demand, gpu_uuids
        self._update_offer(worker_id)

    def release(self, worker_id: str, key: AttemptKey) -> None:
        """The attempt holds nothing any more."""
        self._held[worker_id].pop(key, None)
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
        else:
            self._drains[worker_id] = drain
        self._update_offer(worker_id)

    def drain_of(self, worker_id: str) -> Drain | None:
        return self._drains.get(worker_id)

    def offers(self) -> Sequence[Offer]:
        """Returns every worker's, with those that take nothing now: they explain why a task waits."""
        return tuple(self._offers.values())

    def offer_of(self, worker_id: str) -> Offer | None:
        return self._offers.get(worker_id)

    def allocation(self, worker_id: str) -> Allocation:
        """Returns what the worker's live attempts hold, and why it gets no more."""
        taken, gpu_uuids = self._taken(worker_id)
        offer, drain = self._offers.get(worker_id), self._drains.get(worker_id)
        return Allocation(
            cpu_cores=taken.cpu_millicores / 1000,
            memory_bytes=taken.memory_bytes,
            gpu_uuids=gpu_uuids,
            tasks=len(self._held.get(worker_id, ())),
            refusal=None if offer is None else offer.refusal,
            drain_reason=None if drain is None else drain.reason,
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
        return None if readiness.support.available else readiness.support.reason or "it cannot run tasks"
