"""Quotas of queued tasks: how many may wait, and how many bytes, for the whole master and for each submitter.

A queued task is in memory, as large as its request. Whoever submits without end fills the master, and the queue of
everybody else; so the one is refused, and says which limit. A task that was accepted is never refused later: one that
comes back for a retry, or is found at the start, counts and may exceed a quota.
"""

from collections.abc import Iterable
from typing import NamedTuple

from fleetpulse.master.config import QueueLimits
from fleetpulse.master.errors import QuotaExceeded
from fleetpulse.master.tasks.records import Task
from fleetpulse.master.tasks.request import TaskRequest

_OVERHEAD_BYTES = 512
"""Of a task without any text."""


class Usage(NamedTuple):
    """What waits: tasks, and bytes of their requests."""

    tasks: int = 0
    size_bytes: int = 0

    def plus(self, other: "Usage") -> "Usage":
        return Usage(self.tasks + other.tasks, self.size_bytes + other.size_bytes)

    def minus(self, other: "Usage") -> "Usage":
        return Usage(self.tasks - other.tasks, self.size_bytes - other.size_bytes)


class QueueQuotas:
    """Counts what is queued. On the hub; nothing here switches."""

    def __init__(self, limits: QueueLimits = QueueLimits()) -> None:  # noqa: B008 - immutable
        self._limits = limits
        self._by_submitter: dict[str | None, Usage] = {}
        self.usage = Usage()

    def take(self, submitter: str | None, request: TaskRequest) -> None:
        """Counts a task that is about to be queued. Raises ``QuotaExceeded``, and counts nothing then."""
        limits = self._limits
        task = Usage(1, request_bytes(request))
        master, own = self.usage.plus(task), self.used_by(submitter).plus(task)
        whose = submitter or "unknown submitters"
        for name, used, limit, what in (
            ("token_queued_tasks", own.tasks, limits.token_tasks, f"tasks of {whose}"),
            ("token_queued_bytes", own.size_bytes, limits.token_bytes, f"bytes of {whose}"),
            ("queued_tasks", master.tasks, limits.tasks, "tasks"),
            ("queued_bytes", master.size_bytes, limits.size_bytes, "bytes"),
        ):
            if used > limit:
                raise QuotaExceeded(name, f"the limit {name} is reached: {limit:,} {what} may be queued at a time")
        self._count(submitter, task)

    def add(self, task: Task) -> None:
        """The task is queued again, or was found at the start."""
        self._count(task.submitter, Usage(1, request_bytes(task.request)))

    def release(self, submitter: str | None, request: TaskRequest) -> None:
        """The task is not queued any more, or was not accepted."""
        task = Usage(1, request_bytes(request))
        self.usage = self.usage.minus(task)
        left = self.used_by(submitter).minus(task)
        if left.tasks > 0:
            self._by_submitter[submitter] = left
        else:
            self._by_submitter.pop(submitter, None)

    def used_by(self, submitter: str | None) -> Usage:
        """Returns what waits of one submitter."""
        return self._by_submitter.get(submitter, Usage())

    def _count(self, submitter: str | None, task: Usage) -> None:
        self.usage = self.usage.plus(task)
        self._by_submitter[submitter] = self.used_by(submitter).plus(task)


def request_bytes(request: TaskRequest) -> int:
    """Returns how large a request is, in bytes of its texts; about what it takes in memory."""
    texts: list[str] = [request.docker_image, request.name, *request.command]
    for names in (request.env, request.labels):
        texts += names
        texts += names.values()
    for label, values in request.constraints.items():
        texts += label, *values
    return _OVERHEAD_BYTES + _utf8_bytes(texts)


def _utf8_bytes(texts: Iterable[str]) -> int:
    return sum(len(text) if text.isascii() else len(text.encode("utf-8", "replace")) for text in texts)
