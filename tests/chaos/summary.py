"""What a history amounts to, in figures: that it was a test at all."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from tests.chaos import history
from tests.chaos.story import Story


class Summary(NamedTuple):
    """The figures of one history."""

    rounds: int
    seconds: float
    submits: int
    acknowledged: int
    tasks: Counter[str]
    attempts: Counter[str]
    containers: int
    survivors: int
    """Containers that ran when their worker or the master was killed or cut off, and that ended by themselves later."""


def summary(records: Sequence[history.Record]) -> Summary:
    """Figures of one history."""
    story = Story(records)
    tasks = story.tasks.values()
    survivors = [
        container
        for container in story.containers
        if any(container.ran_at(fault.time) for fault in story.breaks_of(container.worker_id))
        and (attempt := story.attempts.get(container.key)) is not None
        and attempt.status in {"completed", "failed"}
    ]
    return Summary(
        rounds=story.rounds,
        seconds=records[-1].time - records[0].time,
        submits=len(story.jobs),
        acknowledged=len(story.acknowledged),
        tasks=Counter(task.status for task in tasks),
        attempts=Counter(attempt.status for attempt in story.attempts.values()),
        containers=sum(bool(container.started) for container in story.containers),
        survivors=len(survivors),
    )
