"""A policy of placement: each task goes where most cores are free, so that machines share the work evenly."""

from collections.abc import Sequence

from fleetpulse.master.tasks.placement.records import Offer, Placement, Plan, Waiting, satisfies


def plan(offers: Sequence[Offer], waiting: Sequence[Waiting], _now: float) -> Plan:
    """High priorities first, then the oldest. Pure: what is given away in this round is kept in ``left`` alone."""
    left = {offer.worker_id: offer for offer in offers if offer.refusal is None}
    placements: list[Placement] = []
    for task in sorted(waiting, key=lambda task: (-task.priority, task.queued_at)):
        fitting = [offer for offer in left.values() if _fits(task, offer)]
        if not fitting:
            continue
        offer = max(fitting, key=lambda offer: (offer.free_cpu_cores, offer.worker_id))
        gpu_uuids = offer.free_gpu_uuids[: task.demand.gpus]
        placements.append(Placement(task.task_id, offer.worker_id, gpu_uuids))
        left[offer.worker_id] = offer._replace(
            free_cpu_cores=offer.free_cpu_cores - task.demand.cpu_cores,
            free_memory_bytes=offer.free_memory_bytes - task.demand.memory_bytes,
            free_gpu_uuids=offer.free_gpu_uuids[task.demand.gpus :],
        )
    return Plan(placements, reservations={})


def _fits(task: Waiting, offer: Offer) -> bool:
    return (
        offer.free_cpu_cores >= task.demand.cpu_cores
        and offer.free_memory_bytes >= task.demand.memory_bytes
        and len(offer.free_gpu_uuids) >= task.demand.gpus
        and satisfies(offer, task.constraints)
    )
