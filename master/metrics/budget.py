"""The budget of names on ``/metrics``: what a worker calls its tasks and devices becomes a label, and so a series.

A task needs no budget: only one that the master assigned to the worker is shown. Of devices (filesystems, disks,
interfaces, GPUs, collectors) a worker may bring so many new names an hour, and the fleet may show so many at a time.
What is shown stays as long as its worker reports it, so a worker past its budget loses its new devices, and no other
worker loses any.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

TaskCheck = Callable[[str, str, int], bool]
"""Whether the worker with this id has this attempt of this task. Called on the hub; must not switch."""

MAX_NEW_DEVICES_AN_HOUR = 512
"""Of one worker. A message has 64 devices of each kind at most, so a restart never comes near."""

MAX_FLEET_DEVICES = 500_000
"""15,000 workers with 33 each; about 100 MB of text."""

NOT_ASSIGNED = "task_not_assigned"
TOO_MANY_NEW_DEVICES = "too_many_new_devices"
TOO_MANY_DEVICES = "too_many_devices"
REASONS = (NOT_ASSIGNED, TOO_MANY_NEW_DEVICES, TOO_MANY_DEVICES)

_HOUR_SECONDS = 3600.0
_MAX_DEPARTED = 10_000


class _Worker(NamedTuple):
    """What a worker uses of the budgets."""

    shown: int
    new: int
    """New names since ``since``, seconds of the monotonic clock."""

    since: float


class NameBudget:
    """On the hub; nothing here switches. Times are of a monotonic clock, in seconds."""

    def __init__(self, max_new: int = MAX_NEW_DEVICES_AN_HOUR, max_fleet: int = MAX_FLEET_DEVICES) -> None:
        self._max_new, self._max_fleet = max_new, max_fleet
        self._workers: dict[str, _Worker] = {}
        self._left_out: dict[str, dict[str, int]] = {}
        """By worker that ever had any, how many are left out now for each reason."""

        self._totals = dict.fromkeys(REASONS, 0)
        self._report: Callable[[str, int], None] = lambda _reason, _count: None

        self._departed: OrderedDict[str, _Worker] = OrderedDict()
        self._shown = 0

    def admit(
        self, worker_id: str, reported: Sequence[Hashable], shown_before: AbstractSet[Hashable], now: float
    ) -> AbstractSet[Hashable]:
        """Returns the devices to leave out, of all that the worker reports; none of those that were shown before."""
        before = self._workers.get(worker_id) or self._departed.pop(worker_id, None) or _Worker(0, 0, now)
        new, since = (0, now) if now - before.since >= _HOUR_SECONDS else before[1:]
        fresh = [device for device in reported if device not in shown_before]
        others = self._shown - before.shown
        may_be_new = max(self._max_new - new, 0)
        fits = max(self._max_fleet - others - (len(reported) - len(fresh)), 0)
        accepted = min(len(fresh), may_be_new, fits)
        hidden = fresh[accepted:]
        self._workers[worker_id] = _Worker(len(reported) - len(hidden), new + accepted, since)
        self._shown = others + len(reported) - len(hidden)
        self.note_left_out(worker_id, TOO_MANY_NEW_DEVICES, len(hidden) if may_be_new <= fits else 0)
        self.note_left_out(worker_id, TOO_MANY_DEVICES, len(hidden) if may_be_new > fits else 0)
        return frozenset(hidden)

    def note_left_out(self, worker_id: str, reason: str, count: int) -> None:
        """So many of the worker's are left out now."""
        counts = self._left_out.get(worker_id, {})
        before = counts.get(reason, 0)
        if count == before:
            return
        self._left_out[worker_id] = {**counts, reason: count}
        self._totals[reason] += count - before
        self._report(reason, self._totals[reason])

    def remove(self, worker_id: str) -> None:
        """The worker left. One that used up much of its budget finds it so when it comes back."""
        for reason in self._left_out.get(worker_id, ()):
            self.note_left_out(worker_id, reason, 0)
        self._left_out.pop(worker_id, None)
        worker = self._workers.pop(worker_id, None)
        if worker is None:
            return
        self._shown -= worker.shown
        if worker.new > self._max_new // 4:
            self._departed[worker_id] = worker._replace(shown=0)
            if len(self._departed) > _MAX_DEPARTED:
                self._departed.popitem(last=False)

    def left_out(self, reason: str) -> int:
        """How many are left out now, for this reason."""
        return self._totals[reason]

    def report_to(self, report: Callable[[str, int], None]) -> None:
        """Call ``report(reason, number)`` now, and whenever the number that is left out changes."""
        self._report = report
        for reason, count in self._totals.items():
            report(reason, count)
