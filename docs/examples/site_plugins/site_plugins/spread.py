"""A placement policy that places each task on the worker with the most free cores, to spread the load evenly."""

from collections.abc import Sequence

from fleetpulse.master.tasks.placement import Offer, Placement, Plan, QueuedTask, satisfies


def plan(offers: Sequence[Offer], queue: Sequence[QueuedTask], _now: float) -> Plan:
    """Places high priorities first, then the oldest. Pure: ``left`` has what this round has not allocated yet."""
    left = {offer.worker_id: offer for offer in offers if offer.refusal is None}
    placements: list[Placement] = []
    for task in sorted(queue, key=lambda task: (-task.priority, task.queued_at)):
        fitting = [offer for offer in left.values() if _fits(task, offer)]
        if not fitting:
            continue
        offer = max(fitting, key=lambda offer: (offer.free.cpu_millicores, offer.worker_id))
        gpu_uuids = offer.free_gpu_uuids[: task.demand.gpus]
        placements.append(Placement(task.task_id, offer.worker_id, gpu_uuids))
        left[offer.worker_id] = offer._replace(
            free=offer.free.minus(task.demand), free_gpu_uuids=offer.free_gpu_uuids[task.demand.gpus :]
        )
    return Plan(placements, reservations={})


def _fits(task: QueuedTask, offer: Offer) -> bool:
    return task.demand.fits_into(offer.free) and satisfies(offer, task.constraints)
