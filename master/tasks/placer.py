"""Finds places for the tasks that wait: one greenlet, woken when there might be room.

The policy runs in a native thread, on a snapshot. By the time that it is done the world has moved on, and it may be
somebody else's; so each placement is checked against what is true now, and what does not hold waits for the next round.
"""

import logging
import time
from collections.abc import Mapping

import gevent
from gevent.event import Event

from fleetpulse.master.tasks.fleet import FleetCapacity
from fleetpulse.master.tasks.live import demand_of
from fleetpulse.master.tasks.placement.records import Placement, Policy, satisfies
from fleetpulse.master.tasks.records import Task, TaskStatus
from fleetpulse.master.tasks.registry import TaskRegistry
from fleetpulse.master.tasks.scheduler import plan
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


class Placer:
    """Owns the greenlet ``task-placer`` from ``start`` to ``stop``."""

    def __init__(self, ledger: TaskRegistry, clock: Clock, policy: Policy = plan) -> None:
        self._ledger = ledger
        self._clock = clock
        self._policy = policy
        self._round_began: float | None = None
        self._refused = 0
        self._room = Event()
        self._greenlet: gevent.Greenlet[..., None] | None = None
        self.reservations: Mapping[str, str] = {}
        """By worker id, the task for which the last round keeps the worker."""

        self.rounds = 0

        ledger.on_room = self._room.set

    def start(self) -> None:
        self._greenlet = gevent.spawn(self._run)
        self._greenlet.name = "task-placer"

    def stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill()

    def health_error(self) -> str | None:
        """Why no task finds a place, or ``None``."""
        if self._greenlet is None or self._greenlet.dead:
            return "nobody places tasks"
        began = self._round_began
        if began is not None and (seconds := self._clock.monotonic() - began) > STUCK_AFTER_SECONDS:
            return f"the placement of tasks has been thinking for {seconds:.0f} s"
        return None

    def place(self) -> int:
        """One round; how many tasks found a place. Waits while the scheduler runs."""
        waiting = self._ledger.live.waiting(self._clock.wall())
        if not waiting:
            self.reservations = {}
            return 0
        started = time.perf_counter()
        offers = self._ledger.fleet.offers()
        self._round_began = self._clock.monotonic()
        try:
            decided = gevent.get_hub().threadpool.apply(self._policy, (offers, waiting, self._clock.wall()))
        finally:
            self._round_began = None
        self.reservations = dict(decided.reservations)
        self.rounds += 1
        count = self._refused = 0
        for number, placement in enumerate(decided.placements, start=1):
            count += self._carry_out(placement)
            if number % _PLACED_IN_A_ROW == 0:
                gevent.sleep(0)
        self._ledger.instruments.scheduling_round.observe(time.perf_counter() - started)
        return count

    def _run(self) -> None:
        while True:
            self._room.wait(self._patience_seconds())
            self._room.clear()
            gevent.sleep(GATHER_SECONDS)
            started, count = time.perf_counter(), 0
            try:
                count = self.place()
            except Exception:
                _LOGGER.exception("a round of the scheduler failed")
            # A policy that is wrong about everything would be asked again at once, and for ever.
            is_wrong = self._refused and not count
            taken = time.perf_counter() - started
            gevent.sleep(LONGEST_REST_SECONDS if is_wrong else min(REST_RATIO * taken, LONGEST_REST_SECONDS))

    def _patience_seconds(self) -> float | None:
        wall, live = self._clock.wall(), self._ledger.live
        pause_ends = live.next_pause_ends()
        if live.waiting(wall):
            return LONGEST_WAIT_SECONDS
        return None if pause_ends is None else max(pause_ends - wall, 0.0)

    def _carry_out(self, placement: Placement) -> bool:
        entry = self._ledger.live.get(placement.task_id)
        if entry is None or entry.task.status is not TaskStatus.QUEUED:
            return False
        if not still_fits(placement, self._ledger.fleet, entry.task):
            self._refused += 1
            self._room.set()
            return False
        self._ledger.apply(entry, placed(entry.task, placement.worker_id, placement.gpu_uuids, self._clock.wall()))
        return True


def still_fits(placement: Placement, fleet: FleetCapacity, task: Task) -> bool:
    """Whether the worker may get the task, and has now what the policy saw a moment ago, or says that it saw."""
    offer, demand = fleet.offer_of(placement.worker_id), demand_of(task)
    return (
        offer is not None
        and offer.refusal is None
        and offer.free_cpu_cores >= demand.cpu_cores
        and offer.free_memory_bytes >= demand.memory_bytes
        and len(set(placement.gpu_uuids)) == len(placement.gpu_uuids) == demand.gpus
        and set(placement.gpu_uuids) <= set(offer.free_gpu_uuids)
        and satisfies(offer, task.spec.constraints)
    )
