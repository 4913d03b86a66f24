"""What the fleet has for tasks: the capacity of each worker, what is taken of it, and why a worker gets nothing.

Resources comes with registrations, readiness with heartbeats, drains from people, allocations from placements. The
scheduler sees all of it as offers.
"""

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

from fleetpulse.master.tasks.placement.records import Offer
from fleetpulse.master.tasks.records import Demand, Drain
from fleetpulse.master.tasks.wire import AttemptKey
from fleetpulse.master.telemetry.records import Allocation, Registration, TaskSupport, WorkerTelemetry

_TELEMETRY_ONLY = "it only reports telemetry"


class _Ready(NamedTuple):
    """What of a worker's telemetry decides about tasks."""

    is_active: bool
    registration: Registration
    support: TaskSupport | None


class _Held(NamedTuple):
    """What one live attempt takes."""

    demand: Demand
    gpu_uuids: tuple[str, ...]


class FleetCapacity:
    """Changes as it is told; ``offers`` is a snapshot."""

    def __init__(self) -> None:
        self._ready: dict[str, _Ready] = {}
        self._connected: set[str] = set()
        self._drains: dict[str, Drain] = {}
        self._held: dict[str, dict[AttemptKey, _Held]] = {}
        self._offers: dict[str, Offer] = {}
        self.revision = 0
        """Grows with every change of an offer."""

    def observe(self, telemetry: WorkerTelemetry) -> bool:
        """Take note of a worker's telemetry; whether that changed what it offers. Cheap when it did not."""
        # Mostly the same objects as last time, and then told apart by identity.
        ready = _Ready(telemetry.is_active, telemetry.registration, telemetry.task_support)
        if self._ready.get(telemetry.worker_id) == ready:
            return False
        self._ready[telemetry.worker_id] = ready
        self._make_offer(telemetry.worker_id)
        return True

    def forget(self, worker_id: str) -> None:
        """The worker has left. What its attempts hold, if any, is held until they end."""
        self._ready.pop(worker_id, None)
        self._offers.pop(worker_id, None)
        self.revision += 1

    def allocate(self, worker_id: str, key: AttemptKey, demand: Demand, gpu_uuids: tuple[str, ...]) -> None:
        """The attempt takes this of the worker until it is released."""
        self._held.setdefault(worker_id, {})[key] = _Held(demand, gpu_uuids)
        self._make_offer(worker_id)

    def release(self, worker_id: str, key: AttemptKey) -> None:
        """The attempt takes nothing any more."""
        held = self._held.get(worker_id, {})
        held.pop(key, None)
        if not held:
            self._held.pop(worker_id, None)
        self._make_offer(worker_id)

    def set_connected(self, worker_id: str, *, is_connected: bool) -> None:
        """Whether the worker can be told anything now."""
        if is_connected:
            self._connected.add(worker_id)
        else:
            self._connected.discard(worker_id)
        self._make_offer(worker_id)

    def set_drain(self, worker_id: str, drain: Drain | None) -> None:
        """The worker gets no new tasks; ``None``: it does again."""
        if drain is None:
            self._drains.pop(worker_id, None)
        else:
            self._drains[worker_id] = drain
        self._make_offer(worker_id)

    def drain_of(self, worker_id: str) -> Drain | None:
        return self._drains.get(worker_id)

    def offers(self) -> Sequence[Offer]:
        """Every worker's, also of those that take nothing now: they explain why a task waits."""
        return tuple(self._offers.values())

    def offer_of(self, worker_id: str) -> Offer | None:
        return self._offers.get(worker_id)

    def allocation(self, worker_id: str) -> Allocation:
        """What the worker's live attempts take, and why it gets no more."""
        held = self._held.get(worker_id, {}).values()
        offer, drain = self._offers.get(worker_id), self._drains.get(worker_id)
        return Allocation(
            # Summed in thousandths of a core: ten times 0.1 is 1.
            cpu_cores=sum(_millicores(taken.demand) for taken in held) / 1000,
            memory_bytes=sum(taken.demand.memory_bytes for taken in held),
            gpu_uuids=tuple(sorted(uuid for taken in held for uuid in taken.gpu_uuids)),
            tasks=len(held),
            refusal=None if offer is None else offer.refusal,
            drain_reason=None if drain is None else drain.reason,
        )

    def _make_offer(self, worker_id: str) -> None:
        self.revision += 1
        ready = self._ready.get(worker_id)
        if ready is None:
            return
        taken, capacity = self.allocation(worker_id), ready.registration.capacity
        total_millicores = round((capacity.cpu_cores or 0.0) * 1000)
        self._offers[worker_id] = Offer(
            worker_id=worker_id,
            labels=ready.registration.labels,
            cpu_cores=total_millicores / 1000,
            memory_bytes=capacity.memory_bytes or 0,
            gpu_uuids=capacity.gpu_uuids,
            free_cpu_cores=(total_millicores - round(taken.cpu_cores * 1000)) / 1000,
            free_memory_bytes=(capacity.memory_bytes or 0) - taken.memory_bytes,
            free_gpu_uuids=tuple(uuid for uuid in capacity.gpu_uuids if uuid not in taken.gpu_uuids),
            refusal=self._refusal(worker_id, ready),
        )

    def _refusal(self, worker_id: str, ready: _Ready) -> str | None:
        if not ready.is_active:
            return "it is inactive"
        drain = self._drains.get(worker_id)
        if drain is not None:
            return f"it is drained: {drain.reason}" if drain.reason else "it is drained"
        if ready.support is None:
            return _TELEMETRY_ONLY
        if worker_id not in self._connected:
            return "its connection is broken"
        return None if ready.support.available else ready.support.reason or "it cannot run tasks"


def _millicores(demand: Demand) -> int:
    # Rounded up, so that no sum promises more than there is; the inner round takes the dust off 0.1 * 1000.
    return ceil(round(demand.cpu_cores * 1000, 6))
