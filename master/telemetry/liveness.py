"""Who is alive, judged by when the master last heard from them. Pure: the caller brings the time.

Every worker has a lease of the same length, so the order in which leases were renewed is the order in which they run
out. A dict that keeps that order finds the expired ones without looking at the others: a check of 10,000 healthy
workers reads one entry.
"""

from collections.abc import Iterator


class LeaseTable:
    """Leases of ``timeout_seconds`` by worker id, on a monotonic clock in seconds.

    ``expire`` must be called regularly. When the table was not used for more than ``stall_seconds``, the master itself
    stood still (a suspended laptop, a stopped process, a starved host) and could not have heard anyone; that time is
    not held against the workers.
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
        self._forgive_a_stall(now)
        self._renewed_at.pop(worker_id, None)
        self._renewed_at[worker_id] = now - self._forgiven_seconds

    def drop(self, worker_id: str) -> None:
        """The worker has no lease any more; one that had none is fine."""
        self._renewed_at.pop(worker_id, None)

    def silent_seconds(self, worker_id: str, now: float) -> float | None:
        """For how long the worker has not been heard; ``None`` when it has no lease."""
        self._forgive_a_stall(now)
        renewed_at = self._renewed_at.get(worker_id)
        return None if renewed_at is None else now - self._forgiven_seconds - renewed_at

    def expire(self, now: float) -> list[str]:
        """End the leases that have run out at ``now`` and return whose they were, the longest silent first."""
        self._forgive_a_stall(now)
        expired = list(self._expired(now))
        for worker_id in expired:
            del self._renewed_at[worker_id]
        return expired

    def _forgive_a_stall(self, now: float) -> None:
        # From the last use, not from the last check: a lease renewed in between would be moved past later ones.
        idle_seconds = 0.0 if self._used_at is None else now - self._used_at
        if idle_seconds > self._stall_seconds:
            self._forgiven_seconds += idle_seconds
        # A receipt that waited for the hub is stamped before the last use; then no time has passed.
        if self._used_at is None or idle_seconds > 0.0:
            self._used_at = now

    def _expired(self, now: float) -> Iterator[str]:
        deadline = now - self._forgiven_seconds - self.timeout_seconds
        for worker_id, renewed_at in self._renewed_at.items():
            if renewed_at > deadline:
                return
            yield worker_id
