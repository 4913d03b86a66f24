"""What a placement policy is given and returns, and the built-in policy, ``best_fit``. Pure.

``best_fit`` orders tasks by effective priority, which grows by one level for each ``SECONDS_PER_PRIORITY_LEVEL`` of
waiting: tasks of about the same age keep their priorities, and a stream of high ones cannot starve a low one. A task
that does not fit is passed over, so small tasks fill the gaps that large ones leave. A task that has been passed over
for ``RESERVE_AFTER_SECONDS`` gets a worker reserved: nothing behind it is placed there until the task itself is placed.
Nothing is remembered between rounds: the same rules lead to the same reservation.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heappop, heappush
from importlib.metadata import EntryPoints
from math import ceil, log2
from typing import NamedTuple

from fleetpulse.master.config import BEST_FIT
from fleetpulse.master.errors import ConfigError

POLICIES_GROUP = "fleetpulse.placement"
"""The entry points that name a ``Policy``; ``--placement NAME`` chooses one."""

SECONDS_PER_PRIORITY_LEVEL = 60.0
RESERVE_AFTER_SECONDS = 30.0

MAX_RESERVED_RATIO = 0.5
"""Of the workers that take tasks; one may always be reserved."""

MAX_RESERVED_WORKERS = 32
RESERVATION_TURN_SECONDS = 600.0
"""The length of the first turn of a reservation; each later one is twice as long as the one before."""


class ResourceAmounts(NamedTuple):
    """An amount of each resource, in whole numbers: ten times 0.1 cores are exactly one."""

    cpu_millicores: int
    memory_bytes: int
    gpus: int

    def fits_into(self, free: "ResourceAmounts") -> bool:
        return self[0] <= free[0] and self[1] <= free[1] and self[2] <= free[2]

    def minus(self, other: "ResourceAmounts") -> "ResourceAmounts":
        return ResourceAmounts(self[0] - other[0], self[1] - other[1], self[2] - other[2])

    def missing_from(self, free: "ResourceAmounts") -> "ResourceAmounts":
        """Returns what ``free`` lacks to hold this; nothing below 0."""
        return ResourceAmounts(*(max(amount, 0) for amount in self.minus(free)))

    def share_missing_from(self, free: "ResourceAmounts") -> float:
        """Returns the sum of the missing shares of each resource; 0 when this fits."""
        # Written out: it is called for every worker and each reservation.
        cpu_millicores, memory_bytes, gpus = self
        share = 0.0
        if cpu_millicores > free[0]:
            share += (cpu_millicores - free[0]) / cpu_millicores
        if memory_bytes > free[1]:
            share += (memory_bytes - free[1]) / memory_bytes
        return share + (gpus - free[2]) / gpus if gpus > free[2] else share


def millicores(cores: float) -> int:
    """Returns the demand for so many cores, rounded up and at least 1: no sum promises more than there is."""
    return max(ceil(round(cores * 1000, 6)), 1)  # the inner round takes the dust off 0.1 * 1000


class Offer(NamedTuple):
    """What one worker has in all, and what of that no live attempt holds."""

    worker_id: str
    labels: Mapping[str, str]
    total: ResourceAmounts
    free: ResourceAmounts
    gpu_uuids: tuple[str, ...] = ()
    free_gpu_uuids: tuple[str, ...] = ()
    refusal: str | None = None
    """Why it takes no tasks now, for people: it drains, is inactive, has no Docker. ``None`` when it takes some."""


class QueuedTask(NamedTuple):
    """A queued task that may be placed now. Constraints are as in ``TaskRequest``."""

    task_id: str
    demand: ResourceAmounts
    constraints: Mapping[str, tuple[str, ...]]
    priority: int
    queued_at: float
    """In seconds, on the clock of the ``now`` that the policy is given."""
    avoided: frozenset[str] = frozenset()
    """Workers on which it could not be started: it goes elsewhere as long as another could hold it."""


class Placement(NamedTuple):
    """A decision: the task runs on that worker, with those GPUs for itself."""

    task_id: str
    worker_id: str
    gpu_uuids: tuple[str, ...]


class Plan(NamedTuple):
    """What one round decided."""

    placements: list[Placement]
    reservations: dict[str, str]
    """By worker id, the task for which the worker is reserved: nothing behind that task was placed there."""


Policy = Callable[[Sequence[Offer], Sequence[QueuedTask], float], Plan]
"""``(offers, queue, now) -> Plan``.

It is called in a native thread, one call at a time, with immutable snapshots: each worker once, those that take nothing
(``refusal``) among them, and each queued task that may be placed now; ``now`` is on the clock of ``queued_at``.
It must not wait, and must return within a fraction of a second, because nothing is placed meanwhile.
A task that it leaves out waits for the next round, at most five seconds later. Each placement is checked when it is
carried out, so a wrong one costs a round, and never puts more on a worker than it has. So does an exception.
"""


def policy_named(name: str, installed: EntryPoints) -> Policy:
    """Returns the policy, loaded. Raises ``ConfigError`` when it is not installed or cannot be loaded."""
    if name == BEST_FIT:
        return best_fit
    found = installed.select(group=POLICIES_GROUP)
    entry = next(iter(found.select(name=name)), None)
    if entry is None:
        known = ", ".join(sorted({BEST_FIT, *found.names}))
        raise ConfigError(f"FLEETPULSE_PLACEMENT={name!r}: no such policy is installed; there is {known}")
    try:
        policy = entry.load()
    except Exception as error:
        raise ConfigError(
            f"FLEETPULSE_PLACEMENT={name!r}: {entry.value} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not callable(policy):
        raise ConfigError(f"FLEETPULSE_PLACEMENT={name!r}: {entry.value} is no function")
    return policy  # type: ignore[no-any-return]  # the placements that it returns are checked one by one


def satisfies(offer: Offer, constraints: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether every label that is named has one of the values that are allowed."""
    return all(label_of(offer, label) in allowed for label, allowed in constraints.items())


def label_of(offer: Offer, label: str) -> str | None:
    """Returns the worker's value of a label; its id for ``worker_id``, whatever its own labels say."""
    return offer.worker_id if label == "worker_id" else offer.labels.get(label)


def best_fit(offers: Sequence[Offer], queue: Sequence[QueuedTask], now: float) -> Plan:
    """Places what fits, and reserves workers for the tasks that wait for too long.

    Worker ids and task ids are unique; their order does not matter.
    """
    ordered = sorted(queue, key=_precedence)
    index = _CandidateIndex(offers, ordered)
    max_reserved = min(max(int(len(index.candidates) * MAX_RESERVED_RATIO), 1), MAX_RESERVED_WORKERS)
    plan = Plan([], {})
    for task, group in zip(ordered, index.groups, strict=True):
        candidate = group.best()
        if candidate is not None:
            gpu_uuids = index.allocate(candidate, group.demand)
            plan.placements.append(Placement(task.task_id, candidate.offer.worker_id, gpu_uuids))
        elif now - task.queued_at >= RESERVE_AFTER_SECONDS and len(plan.reservations) < max_reserved:
            candidate = _to_reserve(group, now - task.queued_at)
            if candidate is not None:
                candidate.is_reserved = True
                plan.reservations[candidate.offer.worker_id] = task.task_id
    return plan


def _precedence(task: QueuedTask) -> tuple[float, float, str]:
    """Sorts by effective priority, then age. All effective priorities grow at the same pace, so the order does not
    depend on the time: a level is worth having been queued so much earlier."""
    return (task.queued_at - task.priority * SECONDS_PER_PRIORITY_LEVEL, task.queued_at, task.task_id)


# Best fit is the first candidate that fits in one order of the workers, the same for every demand: those without GPUs
# first, then those with few free GPUs, then those with little left. Within a round free resources only shrink. So for
# each distinct demand a cursor passes once over the workers in their order at the start, and those that were allocated
# something since, and so have moved forward, are kept in a heap beside it; a thousand tasks with the same demand cost
# little more than one.

_Rank = tuple[int, int, float, str]
_Update = tuple[_Rank, int, "_Candidate"]

_NOTHING = ResourceAmounts(0, 0, 0)


class _Candidate:
    """A worker that takes tasks, with what is left of it in this round."""

    __slots__ = ("free", "free_gpu_uuids", "is_reserved", "offer", "rank", "update_logs")

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self.free = offer.free
        self.free_gpu_uuids = sorted(offer.free_gpu_uuids)
        self.update_logs: list[list[_Update]] = []
        """``updates`` of each pool that it is in."""

        self.rank: _Rank = (0, 0, 0.0, offer.worker_id)
        self.is_reserved = False


class _DemandGroup:
    """All queued tasks with the same demand and the same constraints."""

    __slots__ = ("_cursor", "_large_enough", "_moved", "_pool", "_updates_read", "demand")

    def __init__(self, pool: "_Pool", demand: ResourceAmounts) -> None:
        self.demand = demand
        self._pool = pool
        self._cursor = 0
        self._moved: list[_Update] = []
        self._updates_read = 0
        self._large_enough: list[_Candidate] | None = None

    def best(self) -> _Candidate | None:
        """Returns the worker that fits best; once ``None``, it is ``None`` for the rest of the round."""
        if self._pool.has_refused_less_than(self.demand):
            return None
        moved, unmoved = self._first_moved(), self._first_unmoved()
        if moved is None and unmoved is None:
            self._pool.refuse(self.demand)
        if moved is None or unmoved is None:
            return moved or unmoved
        return min(moved, unmoved, key=lambda candidate: candidate.rank)

    def large_enough(self) -> list[_Candidate]:
        """Returns the workers that could hold the demand if they were idle, by id."""
        if self._large_enough is None:
            self._large_enough = self._pool.large_enough(self.demand)
        return self._large_enough

    def _first_unmoved(self) -> _Candidate | None:
        cpu_millicores, memory_bytes, gpus = self.demand
        candidates = self._pool.with_free
        for index in range(self._cursor, len(candidates)):
            candidate = candidates[index]
            free = candidate.free
            if free[0] >= cpu_millicores and free[1] >= memory_bytes and free[2] >= gpus and not candidate.is_reserved:
                self._cursor = index
                return candidate
        self._cursor = len(candidates)
        return None

    def _first_moved(self) -> _Candidate | None:
        updates = self._pool.updates
        for index in range(self._updates_read, len(updates)):
            rank, _, candidate = updates[index]
            if rank is candidate.rank and self.demand.fits_into(candidate.free):
                heappush(self._moved, updates[index])
        self._updates_read = len(updates)
        while self._moved:
            rank, _, candidate = self._moved[0]
            if rank is candidate.rank and not candidate.is_reserved:
                return candidate
            heappop(self._moved)  # it was allocated more since, or is reserved
        return None


class _Pool:
    """The workers that satisfy the same constraints, in the order of their ranks at the start."""

    def __init__(self, members: list[_Candidate], least: ResourceAmounts) -> None:
        self.with_free = [candidate for candidate in members if least.fits_into(candidate.free)]
        self.updates: list[_Update] = []
        """One entry for each allocation."""

        self._members = members
        self._by_id: list[_Candidate] | None = None
        self._largest = _NOTHING
        self._groups: dict[ResourceAmounts, _DemandGroup] = {}
        self._least_refused: list[ResourceAmounts] = []
        for candidate in self.with_free:
            candidate.update_logs.append(self.updates)

    def group(self, demand: ResourceAmounts) -> _DemandGroup:
        group = self._groups.get(demand)
        if group is None:
            group = self._groups[demand] = _DemandGroup(self, demand)
        return group

    def large_enough(self, demand: ResourceAmounts) -> list[_Candidate]:
        if self._by_id is None:
            self._by_id = sorted(self._members, key=lambda candidate: candidate.offer.worker_id)
            self._largest = _each(max, [candidate.offer.total for candidate in self._members])
        if not demand.fits_into(self._largest):
            return []
        return [candidate for candidate in self._by_id if demand.fits_into(candidate.offer.total)]

    def has_refused_less_than(self, demand: ResourceAmounts) -> bool:
        """Whether something smaller did not fit before; what is free only shrinks."""
        return any(refused.fits_into(demand) for refused in self._least_refused)

    def refuse(self, demand: ResourceAmounts) -> None:
        """Notes that the demand fits nowhere in the rest of the round."""
        self._least_refused = [other for other in self._least_refused if not demand.fits_into(other)]
        self._least_refused.append(demand)


class _CandidateIndex:
    """The workers that take tasks, and the groups of the tasks that wait for them. Lives for one round."""

    def __init__(self, offers: Sequence[Offer], queue: Sequence[QueuedTask]) -> None:
        self.candidates = [_Candidate(offer) for offer in offers if offer.refusal is None]
        self._all_millicores = max(sum(candidate.offer.total.cpu_millicores for candidate in self.candidates), 1)
        self._all_memory_bytes = max(sum(candidate.offer.total.memory_bytes for candidate in self.candidates), 1)
        for candidate in self.candidates:
            candidate.rank = self._rank(candidate)
        self.candidates.sort(key=lambda candidate: candidate.rank)
        self._allocations = 0
        self._by_label: dict[str, dict[str | None, list[_Candidate]]] = {}
        self._pools: dict[tuple[tuple[tuple[str, tuple[str, ...]], ...], frozenset[str]], _Pool] = {}
        self._least = _each(min, [task.demand for task in queue])
        self.groups = [self._group(task) for task in queue]
        """The group of each task, in the order of ``queue``."""

    def allocate(self, candidate: _Candidate, demand: ResourceAmounts) -> tuple[str, ...]:
        """Places a task on a worker. Returns the GPUs that it gets, the lowest ids first."""
        gpu_uuids = tuple(candidate.free_gpu_uuids[: demand.gpus])
        candidate.free_gpu_uuids = candidate.free_gpu_uuids[demand.gpus :]
        candidate.free = candidate.free.minus(demand)
        candidate.rank = self._rank(candidate)
        self._allocations += 1
        for updates in candidate.update_logs:
            updates.append((candidate.rank, self._allocations, candidate))
        return gpu_uuids

    def _rank(self, candidate: _Candidate) -> _Rank:
        """Less is a better fit. A task without GPUs goes where none could be wasted."""
        free, gpus = candidate.free, candidate.offer.total.gpus
        left = free.cpu_millicores / self._all_millicores + free.memory_bytes / self._all_memory_bytes
        return (free.gpus, gpus, left, candidate.offer.worker_id)

    def _group(self, task: QueuedTask) -> _DemandGroup:
        if task.avoided:
            elsewhere = self._pool(task.constraints, task.avoided).group(task.demand)
            if elsewhere.large_enough():
                return elsewhere
        return self._pool(task.constraints).group(task.demand)

    def _pool(self, constraints: Mapping[str, tuple[str, ...]], avoided: frozenset[str] = frozenset()) -> _Pool:
        key = tuple(sorted(constraints.items())) if constraints else (), avoided
        pool = self._pools.get(key)
        if pool is None:
            members = self._satisfying(constraints)
            if avoided:
                members = [candidate for candidate in members if candidate.offer.worker_id not in avoided]
            pool = self._pools[key] = _Pool(members, self._least)
        return pool

    def _satisfying(self, constraints: Mapping[str, tuple[str, ...]]) -> list[_Candidate]:
        if not constraints:
            return self.candidates
        choices = (self._with_label(label, allowed) for label, allowed in constraints.items())
        fewest = min(choices, key=len)
        members = (candidate for candidate in fewest if satisfies(candidate.offer, constraints))
        return sorted(members, key=lambda candidate: candidate.rank)

    def _with_label(self, label: str, allowed: Iterable[str]) -> list[_Candidate]:
        by_value = self._by_label.get(label)
        if by_value is None:
            by_value = self._by_label[label] = {}
            for candidate in self.candidates:
                by_value.setdefault(label_of(candidate.offer, label), []).append(candidate)
        return [candidate for value in set(allowed) for candidate in by_value.get(value, ())]


def _each(choose: Callable[[Iterable[int]], int], amounts: Sequence[ResourceAmounts]) -> ResourceAmounts:
    """The least or the most of each resource."""
    return ResourceAmounts(*map(choose, zip(*amounts, strict=True))) if amounts else _NOTHING


def _to_reserve(group: _DemandGroup, waited_seconds: float) -> _Candidate | None:
    """The worker where least is missing, among those in turn if any of them is left."""
    candidates = group.large_enough()
    in_turn = [candidate for candidate in _in_turn(candidates, waited_seconds) if not candidate.is_reserved]
    choice = in_turn or [candidate for candidate in candidates if not candidate.is_reserved]
    return min(choice, key=lambda candidate: group.demand.share_missing_from(candidate.free), default=None)


def _in_turn(candidates: list[_Candidate], waited_seconds: float) -> list[_Candidate]:
    """All of them at first. Where least is missing, one task may run for ever; so later turns go to every second of
    them, every third, ... down to one at a time. Turns grow, to be long enough for any worker to drain."""
    if not candidates:
        return candidates
    turn = int(log2(1 + (waited_seconds - RESERVE_AFTER_SECONDS) / RESERVATION_TURN_SECONDS))
    parts = min(turn + 1, len(candidates))
    return candidates[turn % parts :: parts]
