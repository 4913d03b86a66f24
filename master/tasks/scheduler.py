"""Places queued tasks, in rounds, when capacity may have come free.

The policy runs in a native thread, on a snapshot. By the time that it returns the fleet has changed, and the policy may
be somebody else's; so each placement is checked against the present, and what does not hold waits for the next round.
"""

import logging
import time
from collections.abc import Mapping

import gevent
from gevent.event import Event

from fleetpulse.master.hub_queue import give_way
from fleetpulse.master.tasks.capacity import FleetCapacity
from fleetpulse.master.tasks.placement import Placement, Policy, best_fit, satisfies
from fleetpulse.master.tasks.records import Task, TaskStatus
from fleetpulse.master.tasks.registry import TaskRegistry, demand_of
from fleetpulse.master.tasks.transitions import placed
from fleetpulse.master.telemetry.records import Clock

_LOGGER = logging.getLogger(__name__)

GATHER_SECONDS = 0.01
"""Before a round, so that a burst of submits is one round."""

REST_RATIO = 4.0
"""After a round, so many times its length until the next: a burst of submits to a large fleet must not fill the
processor with rounds."""

LONGEST_REST_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 5.0
"""Between two rounds while tasks wait: their age counts, too."""

STUCK_AFTER_SECONDS = 30.0
"""A round that takes longer has gone wrong: the policy hangs."""

_PLACED_IN_A_ROW = 8
"""Placements after which other greenlets have their turn."""


class Scheduler:
    """Places queued tasks by a policy."""

    def __init__(self, registry: TaskRegistry, capacity_freed: Event, clock: Clock, policy: Policy = best_fit) -> None:
        """``capacity_freed`` is set by whoever knows that a task might be placed now."""
        self._registry = registry
        self._capacity_freed = capacity_freed
        self._clock = clock
        self._policy = policy
        self._round_began: float | None = None
        self._refused = 0
        self.reservations: Mapping[str, str] = {}
        """By worker id, the task for which the last round reserves the worker."""

        self.rounds = 0

    def health_error(self) -> str | None:
        """Returns why a round does not end, or ``None``."""
        began = self._round_began
        if began is not None and (seconds := self._clock.monotonic() - began) > STUCK_AFTER_SECONDS:
            return f"the placement of tasks has been thinking for {seconds:.0f} s"
        return None

    def run(self) -> None:
        """Runs rounds for ever, in a greenlet of its own."""
        while True:
            self._capacity_freed.wait(self._wait_seconds())
            self._capacity_freed.clear()
            gevent.sleep(GATHER_SECONDS)
            started, count = time.perf_counter(), 0
            try:
                count = self.run_round()
            except Exception:
                _LOGGER.exception("a round of the scheduler failed")
            # A policy whose every placement is wrong would be called again at once, and for ever.
            is_wrong = self._refused and not count
            taken = time.perf_counter() - started
            gevent.sleep(LONGEST_REST_SECONDS if is_wrong else min(REST_RATIO * taken, LONGEST_REST_SECONDS))

    def run_round(self) -> int:
        """Waits while the policy runs. Returns how many tasks were placed."""
        queue = self._registry.live.queue(self._clock.wall())
        if not queue:
            self.reservations = {}
            return 0
        started = time.perf_counter()
        offers = self._registry.capacity.offers()
        self._round_began = self._clock.monotonic()
        try:
            plan = gevent.get_hub().threadpool.apply(self._policy, (offers, queue, self._clock.wall()))
        finally:
            self._round_began = None
        self.reservations = dict(plan.reservations)
        self.rounds += 1
        count = self._refused = 0
        for number, placement in enumerate(plan.placements, start=1):
            count += self._carry_out(placement)
            if number % _PLACED_IN_A_ROW == 0:
                give_way()
        self._registry.instruments.scheduling_round.observe(time.perf_counter() - started)
        return count

    def _wait_seconds(self) -> float | None:
        wall, live = self._clock.wall(), self._registry.live
        backoff_ends = live.next_backoff_end()
        if live.queue(wall):
            return LONGEST_WAIT_SECONDS
        return None if backoff_ends is None else max(backoff_ends - wall, 0.0)

    def _carry_out(self, placement: Placement) -> bool:
        entry = self._registry.live.get(placement.task_id)
        if entry is None or entry.task.status is not TaskStatus.QUEUED:
            return False
        if not still_fits(placement, self._registry.capacity, entry.task):
            self._refused += 1
            self._capacity_freed.set()
            return False
        self._registry.apply(entry, placed(entry.task, placement.worker_id, placement.gpu_uuids, self._clock.wall()))
        return True


def still_fits(placement: Placement, capacity: FleetCapacity, task: Task) -> bool:
    """Whether the worker may get the task now, and has what the placement gives to it."""
    offer, demand = capacity.offer_of(placement.worker_id), demand_of(task)
    return (
        offer is not None
        and offer.refusal is None
        and demand.fits_into(offer.free)
        and len(set(placement.gpu_uuids)) == len(placement.gpu_uuids) == demand.gpus
        and set(placement.gpu_uuids) <= set(offer.free_gpu_uuids)
        and satisfies(offer, task.request.constraints)
    )
