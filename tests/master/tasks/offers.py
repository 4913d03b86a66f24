"""Offers and waiting tasks for the tests of the scheduler, in few words."""

from collections.abc import Mapping, Sequence

from fleetpulse.master.tasks.placement import Offer, Placement, QueuedTask, ResourceAmounts, best_fit, millicores

GIB = 1024**3
ANYWHERE: Mapping[str, tuple[str, ...]] = {}


def an_offer(
    worker_id: str,
    cpu: float = 4.0,
    memory: float = 16.0,
    gpus: Sequence[str] = (),
    *,
    taken: tuple[float, float, Sequence[str]] = (0.0, 0.0, ()),
    labels: Mapping[str, str] | None = None,
    refusal: str | None = None,
) -> Offer:
    """A worker with so many cores, GiB and GPUs; ``taken`` is of the same three."""
    free_gpus = tuple(gpu for gpu in gpus if gpu not in taken[2])
    total = ResourceAmounts(round(cpu * 1000), int(memory * GIB), len(gpus))
    free = ResourceAmounts(round((cpu - taken[0]) * 1000), int((memory - taken[1]) * GIB), len(free_gpus))
    return Offer(worker_id, labels or {}, total, free, tuple(gpus), free_gpus, refusal)


def a_task(
    task_id: str,
    cpu: float = 1.0,
    memory: float = 1.0,
    gpus: int = 0,
    *,
    priority: int = 0,
    queued_at: float = 0.0,
    constraints: Mapping[str, tuple[str, ...]] = ANYWHERE,
) -> QueuedTask:
    return QueuedTask(
        task_id, ResourceAmounts(millicores(cpu), int(memory * GIB), gpus), constraints, priority, queued_at
    )


def places(offers: Sequence[Offer], waiting: Sequence[QueuedTask], now: float = 0.0) -> dict[str, str]:
    """By task, the worker that it goes to."""
    return {placement.task_id: placement.worker_id for placement in best_fit(offers, waiting, now).placements}


def after(offers: Sequence[Offer], waiting: Sequence[QueuedTask], placements: Sequence[Placement]) -> list[Offer]:
    """What is offered when these placements have been made."""
    left = {offer.worker_id: offer for offer in offers}
    demands = {task.task_id: task.demand for task in waiting}
    for task_id, worker_id, gpu_uuids in placements:
        offer, demand = left[worker_id], demands[task_id]
        left[worker_id] = offer._replace(
            free=offer.free.minus(demand),
            free_gpu_uuids=tuple(uuid for uuid in offer.free_gpu_uuids if uuid not in gpu_uuids),
        )
    return list(left.values())
