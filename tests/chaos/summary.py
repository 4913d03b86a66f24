"""Counts over a history, which show how much it tested."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from tests.chaos import history
from tests.chaos.index import HistoryIndex


class Summary(NamedTuple):
    """The counts of one history."""

    rounds: int
    seconds: float
    submits: int
    acknowledged: int
    tasks: Counter[str]
    attempts: Counter[str]
    containers: int
    survivors: int
    """Containers that ran during a fault of their worker or the master and ended by themselves later."""


def summary(records: Sequence[history.Record]) -> Summary:
    """Counts a history."""
    index = HistoryIndex(records)
    tasks = index.tasks.values()
    survivors = [
        container
        for container in index.containers
        if any(container.ran_at(fault.time) for fault in index.faults_of(container.worker_id))
        and (attempt := index.attempts.get(container.key)) is not None
        and attempt.status in {"completed", "failed"}
    ]
    return Summary(
        rounds=index.rounds,
        seconds=records[-1].time - records[0].time,
        submits=len(index.jobs),
        acknowledged=len(index.acknowledged),
        tasks=Counter(task.status for task in tasks),
        attempts=Counter(attempt.status for attempt in index.attempts.values()),
        containers=sum(bool(container.started) for container in index.containers),
        survivors=len(survivors),
    )
