"""Why queued tasks wait, in words: worked out when somebody asks, and kept until something in the fleet changes."""

import gevent

from fleetpulse.master.tasks.explain import explain
from fleetpulse.master.tasks.fleet import FleetCapacity
from fleetpulse.master.tasks.live import waiting_for
from fleetpulse.master.tasks.placer import Placer
from fleetpulse.master.tasks.records import Task

_MAX_KEPT = 2000


class QueueReasons:
    """A page of tasks often asks for the same, so a sentence is kept by what the task asks for."""

    def __init__(self, fleet: FleetCapacity, placer: Placer) -> None:
        self._fleet = fleet
        self._placer = placer
        self._kept: dict[object, str] = {}
        self._kept_for: tuple[int, int] | None = None

    def of(self, task: Task, wall: float) -> str:
        """Why the task, which is queued, waits at this time."""
        pause_seconds = (task.not_before or 0.0) - wall
        if pause_seconds > 0.0:
            return f"waits {pause_seconds:.0f} s after a failed attempt before it is tried again"
        state = self._fleet.revision, self._placer.rounds
        if state != self._kept_for or len(self._kept) > _MAX_KEPT:
            self._kept, self._kept_for = {}, state
        waiting, reservations = waiting_for(task), self._placer.reservations
        own = waiting.task_id if waiting.task_id in reservations.values() else None
        wanted = own, waiting.demand, tuple(sorted(waiting.constraints.items()))
        if wanted not in self._kept:
            # A page of tasks that all ask for something else takes a while in a large fleet.
            gevent.sleep(0)
            self._kept[wanted] = explain(waiting, self._fleet.offers(), reservations)
        return self._kept[wanted]
