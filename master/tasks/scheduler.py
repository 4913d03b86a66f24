"""Who goes where: ``(offers, waiting, now) -> Plan``. Pure; runs on a snapshot, in any thread.

The order is by effective priority, which grows by one level for each ``SECONDS_PER_PRIORITY_LEVEL`` of waiting: tasks
of about the same age keep their priorities, and a stream of high ones cannot starve a low one. What does not fit is
passed over, so small tasks fill the gaps that large ones leave. A task that has been passed over for
``RESERVE_AFTER_SECONDS`` has a worker reserved: nothing behind it is placed there until it is placed itself, or the
gaps would be filled for ever. Nothing is remembered between rounds: the same rules lead to the same reservation.
"""

from collections.abc import Sequence
from math import log2

from fleetpulse.master.tasks.placement.fleet import Fleet, Group, Machine
from fleetpulse.master.tasks.placement.records import Offer, Placement, Plan, Waiting

SECONDS_PER_PRIORITY_LEVEL = 60.0
RESERVE_AFTER_SECONDS = 30.0

MAX_RESERVED_RATIO = 0.5
"""Of the workers that take tasks; one may always be reserved."""

MAX_RESERVED_WORKERS = 32
"""However large the fleet is: those first in the order are helped first."""

RESERVATION_TURN_SECONDS = 600.0
"""The length of the first turn of a reservation; each later one is twice as long as the one before."""


def plan(offers: Sequence[Offer], waiting: Sequence[Waiting], now: float) -> Plan:
    """Place what fits, and keep workers for those that wait for too long.

    Worker ids and task ids are unique; in which order they come does not matter.
    """
    ordered = sorted(waiting, key=_precedence)
    fleet = Fleet(offers, ordered)
    most_reserved = min(max(int(len(fleet.machines) * MAX_RESERVED_RATIO), 1), MAX_RESERVED_WORKERS)
    decided = Plan([], {})
    for task, group in zip(ordered, fleet.groups, strict=True):
        machine = group.best()
        if machine is not None:
            gpu_uuids = fleet.give(machine, group.demand)
            decided.placements.append(Placement(task.task_id, machine.offer.worker_id, gpu_uuids))
        elif now - task.queued_at >= RESERVE_AFTER_SECONDS and len(decided.reservations) < most_reserved:
            machine = _machine_to_reserve(group, now - task.queued_at)
            if machine is not None:
                machine.is_reserved = True
                decided.reservations[machine.offer.worker_id] = task.task_id
    return decided


def _precedence(task: Waiting) -> tuple[float, float, str]:
    """Sorts by effective priority, then age. Everybody's effective priority grows at the same pace, so the order does
    not depend on the time: a level is worth having been queued so much earlier."""
    return (task.queued_at - task.priority * SECONDS_PER_PRIORITY_LEVEL, task.queued_at, task.task_id)


def _machine_to_reserve(group: Group, waited_seconds: float) -> Machine | None:
    """The worker where least is missing, among those whose turn it is, if any of them is left."""
    holders = group.holders()
    in_turn = [machine for machine in _whose_turn_it_is(holders, waited_seconds) if not machine.is_reserved]
    choice = in_turn or [machine for machine in holders if not machine.is_reserved]
    return min(choice, key=lambda machine: group.demand.share_missing_from(machine.room), default=None)


def _whose_turn_it_is(holders: list[Machine], waited_seconds: float) -> list[Machine]:
    """All of them at first. Where least is missing, one task may run for ever; so later turns go to every second of
    them, every third, ... down to one at a time. Turns grow, to be long enough for any worker to drain."""
    if not holders:
        return holders
    turn = int(log2(1 + (waited_seconds - RESERVE_AFTER_SECONDS) / RESERVATION_TURN_SECONDS))
    parts = min(turn + 1, len(holders))
    return holders[turn % parts :: parts]
