"""The workers that changed since a revision, for clients that poll or stream.

The log keeps the order of changes, not the changes: each worker is in it once, with its latest revision, so it is as
long as the fleet however far a client is behind. Removals are remembered up to a limit.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from itertools import takewhile
from typing import NamedTuple

from gevent.event import Event

from fleetpulse.master.telemetry.records import WorkerTelemetry

MAX_REMOVALS = 10_000


class ChangeWindow(NamedTuple):
    """The changes up to ``revision``. It may be shared, so nobody changes it."""

    worker_ids: Sequence[str]
    """New or changed workers; the longest unchanged first, where ``revisions`` are given."""

    revisions: Sequence[int] | None
    """Of each of ``worker_ids``: a client that has all up to it is at that revision. ``None``: no such order."""

    removed: Sequence[str]
    revision: int


class ChangeLog:
    """A ``TelemetryObserver`` from the first change on. On the hub; nothing here switches."""

    def __init__(self, max_removals: int = MAX_REMOVALS) -> None:
        self._max_removals = max_removals
        self._registered: dict[str, None] = {}
        self._changes: OrderedDict[str, int] = OrderedDict()
        self._removals: OrderedDict[str, int] = OrderedDict()
        self._forgotten = 0
        self._revision = 0
        self.changed = Event()
        """Set by every change; cleared by the waiter."""

    @property
    def revision(self) -> int:
        """That of the table, as the manager counts it."""
        return self._revision

    def __len__(self) -> int:
        return len(self._changes)

    def worker_changed(self, telemetry: WorkerTelemetry) -> None:
        """The worker is the latest to have changed."""
        worker_id, self._revision = telemetry.worker_id, telemetry.revision
        self._registered[worker_id] = None
        self._removals.pop(worker_id, None)
        self._changes[worker_id] = telemetry.revision
        self._changes.move_to_end(worker_id)
        self._notify()

    def worker_removed(self, worker_id: str) -> None:
        """Remember the removal, and forget the oldest one when there are too many."""
        self._revision += 1  # as the manager does
        self._registered.pop(worker_id, None)
        self._changes.pop(worker_id, None)
        self._removals[worker_id] = self._revision
        if len(self._removals) > self._max_removals:
            _, self._forgotten = self._removals.popitem(last=False)
        self._notify()

    def covers(self, revision: int) -> bool:
        """Whether all changes since the revision are known."""
        return self._forgotten <= revision <= self._revision

    def all_workers(self, among: Collection[str] | None = None) -> ChangeWindow:
        """All workers in the order of their registration; only those ``among`` these, if given."""
        known = self._registered
        found = list(known) if among is None else [worker_id for worker_id in among if worker_id in known]
        return ChangeWindow(found, None, (), self._revision)

    def since(self, revision: int, among: Collection[str] | None = None) -> ChangeWindow:
        """The changes after the revision, which must be covered. Costs by the number of changes, or by ``among``."""
        if among is None:
            changes, removals = _newer(self._changes, revision), _newer(self._removals, revision)
        else:
            changes, removals = (_newer_among(among, order, revision) for order in (self._changes, self._removals))
        worker_ids, revisions = zip(*changes, strict=True) if changes else ((), ())
        return ChangeWindow(worker_ids, revisions, [worker_id for worker_id, _ in removals], self._revision)

    def _notify(self) -> None:
        if not self.changed.is_set():
            self.changed.set()


def _newer(order: OrderedDict[str, int], revision: int) -> list[tuple[str, int]]:
    newer = list(takewhile(lambda item: item[1] > revision, reversed(order.items())))
    newer.reverse()
    return newer


def _newer_among(worker_ids: Iterable[str], order: OrderedDict[str, int], revision: int) -> list[tuple[str, int]]:
    newer = [(worker_id, at) for worker_id in worker_ids if (at := order.get(worker_id, 0)) > revision]
    return sorted(newer, key=lambda item: item[1])
