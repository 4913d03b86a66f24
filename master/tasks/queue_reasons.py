"""Why a task is still queued, in one sentence for people.

The first that holds, from what waiting cannot mend to what mends itself: there is no worker; no worker satisfies the
constraints; none could ever hold the task; those that could take no tasks; a resource is short; others go first.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from fleetpulse.master.hub_queue import give_way
from fleetpulse.master.tasks.capacity import FleetCapacity
from fleetpulse.master.tasks.placement import Offer, QueuedTask, ResourceAmounts, label_of, satisfies
from fleetpulse.master.tasks.records import Task
from fleetpulse.master.tasks.registry import LiveTasks, queued
from fleetpulse.master.tasks.scheduler import Scheduler

_NO_RESERVATIONS: Mapping[str, str] = MappingProxyType({})
_REASONS_NAMED = 3
_MIB, _GIB = 1024**2, 1024**3
_MAX_CACHED = 2000


class QueueReasons:
    """Caches sentences until something in the fleet changes: many tasks of a page ask for the same."""

    def __init__(self, capacity: FleetCapacity, live: LiveTasks, scheduler: Scheduler) -> None:
        self._capacity, self._live = capacity, live
        self._scheduler = scheduler
        self._cached: dict[object, str] = {}
        self._cached_for: tuple[int, int] | None = None

    def reason(self, task: Task, wall: float) -> str:
        """Returns why the task, which is queued, waits at this time."""
        pause_seconds = (task.not_before or 0.0) - wall
        if pause_seconds > 0.0:
            return f"waits {pause_seconds:.0f} s after a failed attempt before it is tried again"
        state = self._capacity.revision, self._scheduler.rounds
        if state != self._cached_for or len(self._cached) > _MAX_CACHED:
            self._cached, self._cached_for = {}, state
        entry = self._live.get(task.task_id)
        queued_task = queued(task, () if entry is None else entry.failed_on)
        reservations = self._scheduler.reservations
        own = task.task_id if task.task_id in reservations.values() else None
        key = own, queued_task.demand, tuple(sorted(queued_task.constraints.items())), queued_task.avoided
        if key not in self._cached:
            # A page of tasks that all ask for something else takes a while in a large fleet.
            give_way()
            self._cached[key] = explain(queued_task, self._capacity.offers(), reservations)
        return self._cached[key]


def explain(task: QueuedTask, offers: Sequence[Offer], reservations: Mapping[str, str] = _NO_RESERVATIONS) -> str:
    """Returns the sentence, without a full stop. ``reservations`` are those of the scheduler's last plan.

    Without a reservation of its own, two tasks with the same demand, constraints and avoided workers have the same
    sentence.
    """
    if not offers:
        return "there is no worker"
    demand, constraints = task.demand, task.constraints
    matching = [offer for offer in offers if satisfies(offer, constraints)] if constraints else offers
    if not matching:
        return _no_match(constraints, offers)
    worker = "worker" if len(matching) == len(offers) else "worker that satisfies the constraints"
    able = [offer for offer in matching if demand.fits_into(offer.total)]
    if not able:
        return _never(demand, matching, worker)
    return _may_fit(task, able, reservations, worker)


def _may_fit(task: QueuedTask, able: Sequence[Offer], reservations: Mapping[str, str], worker: str) -> str:
    """Some worker could hold it, if it were idle and took tasks."""
    demand = task.demand
    taking = [offer for offer in able if offer.refusal is None]
    if not taking:
        return _refused(able)
    if elsewhere := [offer for offer in taking if offer.worker_id not in task.avoided]:
        taking = elsewhere
    for offer in taking:
        if reservations.get(offer.worker_id) == task.task_id:
            return _reserved(demand, offer)
    fitting = [offer.worker_id for offer in taking if demand.fits_into(offer.free)]
    if not fitting:
        avoided = sorted(offer.worker_id for offer in able if offer not in taking and offer.refusal is None)
        others = _others_refuse(len(able) - len(taking) - len(avoided))
        return _short(demand, taking, worker) + others + _not_started_on(avoided)
    return _others_first(fitting, reservations)


def _no_match(constraints: Mapping[str, tuple[str, ...]], offers: Sequence[Offer]) -> str:
    for label, allowed in sorted(constraints.items()):
        if not any(label_of(offer, label) in allowed for offer in offers):
            wanted = f"the id {_either(allowed)}" if label == "worker_id" else f"the label {label}={_either(allowed)}"
            return f"no worker has {wanted}"
    wanted = " and ".join(f"{label}={_either(allowed)}" for label, allowed in sorted(constraints.items()))
    return f"no worker has {wanted} together"


def _never(demand: ResourceAmounts, matching: Sequence[Offer], worker: str) -> str:
    """No worker could hold it, however idle."""
    sizes = {offer.worker_id: offer.total for offer in matching}
    too_large = "; ".join(
        f"needs {_amount(kind, wanted)}, and the largest {worker}, {worker_id}, has {_bare(kind, most)}"
        for kind, wanted, most, worker_id in _shortages(demand, sizes)
    )
    return too_large or f"no {worker} is large enough for {_amounts(demand)} together: {_closest(demand, sizes)}"


def _refused(able: Sequence[Offer]) -> str:
    if len(able) == 1:
        return f"the only worker that could hold it, {able[0].worker_id}, takes no tasks: {able[0].refusal}"
    reasons = Counter(offer.refusal for offer in able).most_common()
    named = "; ".join(f"{count} because {reason}" for reason, count in reasons[:_REASONS_NAMED])
    rest = sum(count for _, count in reasons[_REASONS_NAMED:])
    others = f"; {rest} for other reasons" if rest else ""
    return f"the {len(able)} workers that could hold it take no tasks: {named}{others}"


def _reserved(demand: ResourceAmounts, offer: Offer) -> str:
    lack = demand.missing_from(offer.free)
    if not any(lack):
        return f"is about to be placed on {offer.worker_id}, which is kept for it"
    return f"waits until {_amounts(lack)} more come free on {offer.worker_id}, which is kept for it"


def _short(demand: ResourceAmounts, taking: Sequence[Offer], worker: str) -> str:
    """Some worker could hold it, but none can now."""
    free = {offer.worker_id: offer.free for offer in taking}
    totals = {offer.worker_id: offer.total for offer in taking}
    short = "; nor ".join(
        f"{_amount(kind, wanted)} free: the most is {_bare(kind, most)} on {worker_id},"
        f" of {_bare(kind, totals[worker_id][kind])}"
        for kind, wanted, most, worker_id in _shortages(demand, free)
    )
    return f"no {worker} has {short or f'{_amounts(demand)} free together: {_closest(demand, free)}'}"


def _others_refuse(count: int) -> str:
    return f"; {count} more could hold it, but {'takes' if count == 1 else 'take'} no tasks now" if count else ""


def _not_started_on(avoided: Sequence[str]) -> str:
    return f"; it could not be started on {' and '.join(avoided)}" if avoided else ""


def _others_first(fitting: Sequence[str], reservations: Mapping[str, str]) -> str:
    kept = [worker_id for worker_id in fitting if worker_id in reservations]
    if len(kept) < len(fitting):
        return "waits for its turn: there is room for it, and tasks with higher priority or age are placed first"
    worker_id = min(kept)
    where = worker_id if len(kept) == 1 else f"{len(kept)} workers such as {worker_id}"
    return f"there is room for it only on {where}, kept for a task that waits for longer ({reservations[worker_id]})"


def _shortages(demand: ResourceAmounts, sizes: Mapping[str, ResourceAmounts]) -> Iterable[tuple[int, int, int, str]]:
    """For each resource of which no worker has enough: its index, the demand, the most that there is, and where."""
    for kind, wanted in enumerate(demand):
        most = max(size[kind] for size in sizes.values())
        if most < wanted:
            yield kind, wanted, max(most, 0), min(worker for worker, size in sizes.items() if size[kind] == most)


def _closest(demand: ResourceAmounts, sizes: Mapping[str, ResourceAmounts]) -> str:
    worker_id = min(sizes, key=lambda worker_id: (demand.share_missing_from(sizes[worker_id]), worker_id))
    return f"the closest, {worker_id}, has {_amounts(demand.missing_from(sizes[worker_id]))} too little"


def _amounts(amounts: ResourceAmounts) -> str:
    *parts, last = [_amount(kind, amount) for kind, amount in enumerate(amounts) if amount]
    return f"{', '.join(parts)} and {last}" if parts else last


def _amount(kind: int, amount: int) -> str:
    number = _bare(kind, amount)
    if kind == 1:
        return f"{number} of memory"
    name = ("CPU core", "", "GPU")[kind]
    return f"{number} {name}" if number == "1" else f"{number} {name}s"


def _bare(kind: int, amount: int) -> str:
    if kind == 0:
        return f"{amount / 1000:.3f}".rstrip("0").rstrip(".")
    if kind == 1:
        return f"{amount // _GIB} GiB" if amount % _GIB == 0 else f"{amount // _MIB} MiB"
    return str(amount)


def _either(values: Sequence[str]) -> str:
    return " or ".join(sorted(values)) or "(no value is allowed)"
