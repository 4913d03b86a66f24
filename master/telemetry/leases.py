"""Leases of workers, judged by when the master last heard from them. Pure: the caller brings the time.

Every worker has a lease of the same length, so leases run out in the order in which they were renewed. A dict that
keeps that order finds the expired ones first: a check of 10,000 healthy workers reads one entry.
"""

from collections.abc import Callable, Iterator


def _not_heard(_worker_id: str) -> None:
    """Nobody knows more than the table."""


class Receipts:
    """What was heard of workers and may not have been handled yet. This one knows of nothing."""

    def heard_until(self, now: float) -> float:
        """Returns the time (monotonic) up to which all that arrived has been handled; ``now`` if nothing waits."""
        return now

    def last_heard(self, _worker_id: str, _incarnation_id: str) -> float | None:
        """Returns when the incarnation was last heard (monotonic); ``None`` if nothing is known of it."""
        return None


class LeaseTable:
    """Leases of ``timeout_seconds`` by worker id, on a monotonic clock in seconds.

    ``expire`` must be called regularly. When the table was not used for more than ``stall_seconds``, the master itself
    stood still (a suspended laptop, a stopped process, a starved host) and could not have heard anyone; that time does
    not count against the workers. A time before the last use counts as that of the last use: a heartbeat may be handled
    after a check that came later than it.
    """

    def __init__(self, timeout_seconds: float, stall_seconds: float = 1.0) -> None:
        self.timeout_seconds = timeout_seconds
        self._stall_seconds = stall_seconds
        self._renewed_at: dict[str, float] = {}
        self._used_at: float | None = None
        self._forgiven_seconds = 0.0

    def __len__(self) -> int:
        return len(self._renewed_at)

    def __contains__(self, worker_id: str) -> bool:
        return worker_id in self._renewed_at

    def renew(self, worker_id: str, now: float) -> None:
        """The worker was heard at ``now``."""
        self._renewed_at.pop(worker_id, None)
        self._renewed_at[worker_id] = self._own_time(now)

    def drop(self, worker_id: str) -> None:
        """End the worker's lease, if there is one."""
        self._renewed_at.pop(worker_id, None)

    def silent_seconds(self, worker_id: str, now: float) -> float | None:
        """For how long the worker has not been heard; ``None`` when it has no lease."""
        own_now = self._own_time(now)
        renewed_at = self._renewed_at.get(worker_id)
        return None if renewed_at is None else own_now - renewed_at

    def expire(
        self, now: float, heard_until: float | None = None, last_heard: Callable[[str], float | None] = _not_heard
    ) -> list[str]:
        """End the leases that have run out at ``now``; returns their workers, the longest silent first.

        A lease that runs out after ``heard_until`` does not end: what arrived since then may wait to be handled.
        ``last_heard(worker_id)`` knows when the worker was heard, even if that has not been handled: within the
        timeout, its lease is renewed. It is asked only about leases that have run out.
        """
        unheard_seconds = 0.0 if heard_until is None else max(0.0, now - heard_until)
        expired = []
        for worker_id in list(self._expired(self._own_time(now) - self.timeout_seconds - unheard_seconds)):
            heard_at = last_heard(worker_id)
            if heard_at is not None and now - heard_at < self.timeout_seconds:
                self.renew(worker_id, heard_at)
            else:
                del self._renewed_at[worker_id]
                expired.append(worker_id)
        return expired

    def _own_time(self, now: float) -> float:
        """``now`` on the table's own clock, which never goes back, or the order would break, and leaves out stalls."""
        if self._used_at is not None:
            now = max(now, self._used_at)
            if now - self._used_at > self._stall_seconds:
                self._forgiven_seconds += now - self._used_at
        self._used_at = now
        return now - self._forgiven_seconds

    def _expired(self, deadline: float) -> Iterator[str]:
        for worker_id, renewed_at in self._renewed_at.items():
            if renewed_at > deadline:
                return
            yield worker_id
