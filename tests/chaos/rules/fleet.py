"""What became of workers and processes: who was given up, what was left open, what went wrong aloud."""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from tests.chaos.history import Fault
from tests.chaos.story import AttemptStory, Story

SILENCE_SLACK_SECONDS = 1.0
"""The last heartbeat may have come so long before the fault."""

AFTERMATH_SECONDS = 20.0
"""For how long after a fault a worker may still be given up for it."""

WARM_UP_ROUNDS = 5
FEWEST_ROUNDS = 10
"""A process that lived through fewer, after the warm-up, says nothing about a slope."""

FILES_AT_WILL = 8
"""How much the lowest level of a round may rise over all rounds: about one connection of everybody's."""


def nothing_went_wrong_aloud(story: Story) -> Iterator[str]:
    """No traceback, no fleet that did not recover."""
    for trouble in story.troubles:
        yield trouble.what


_SILENT = "nothing was heard of it"
_FORGOTTEN = "came back without it"
"""What the master says of a lost attempt."""


def no_attempt_is_lost_needlessly(story: Story) -> Iterator[str]:
    """A container is given up only when its worker was silent for the inactivity timeout, because of a fault. One that
    ran when the fault came is still known to its worker afterwards."""
    timeout = story.began.inactivity_timeout_seconds
    for container in story.containers:
        attempt = story.attempts.get(container.key)
        if attempt is None or attempt.status != "lost" or attempt.finished_at is None or not container.started:
            continue
        fault = first_fault_of_the_round(story, attempt)
        if fault is None:
            yield f"{container} was lost, and nothing had happened to its worker"
            continue
        ran_before = container.started[0] < fault.time
        why = attempt.error or ""
        if _FORGOTTEN in why and ran_before:
            yield f"{container} ran before '{fault.what}', and its worker came back without it"
        elif _FORGOTTEN not in why and _SILENT not in why:
            yield f"{container} was lost for a reason that this rule does not know: {why!r}"
        silent_seconds = attempt.finished_at - fault.time
        if ran_before and silent_seconds < timeout - SILENCE_SLACK_SECONDS:
            yield f"{container} was lost {silent_seconds:.1f} s after '{fault.what}', and the timeout is {timeout:g} s"


def first_fault_of_the_round(story: Story, attempt: AttemptStory) -> Fault | None:
    """Where the silence began in which the attempt was lost."""
    assert attempt.finished_at is not None
    before = [
        fault
        for fault in story.breaks_of(attempt.worker_id)
        if attempt.finished_at - AFTERMATH_SECONDS <= fault.time <= attempt.finished_at
    ]
    if not before:
        return None
    newest = max(fault.round for fault in before)
    return min((fault for fault in before if fault.round == newest), key=lambda fault: fault.time)


def open_files_are_flat(story: Story) -> Iterator[str]:
    """A process that lives through the rounds does not gather open files."""
    for process, levels in _levels(story).items():
        if len(levels) < FEWEST_ROUNDS:
            continue
        growth = slope(levels) * len(levels)
        if growth > FILES_AT_WILL:
            yield f"{process} gathered about {growth:.0f} open files over {len(levels)} rounds: {list(levels.values())}"


def slope(levels: Mapping[int, int]) -> float:
    """The median of the slopes between any two rounds (Theil and Sen): some odd rounds do not move it."""
    slopes = [(levels[later] - levels[sooner]) / (later - sooner) for sooner, later in combinations(sorted(levels), 2)]
    return statistics.median(slopes) if slopes else 0.0


def _levels(story: Story) -> Mapping[str, Mapping[int, int]]:
    """For every process, the lowest number of open files in each round after the warm-up."""
    counts: defaultdict[str, defaultdict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for sample in story.open_files:
        counts[f"{sample.process} (pid {sample.pid})"][sample.round].append(sample.files)
    return {process: _after_warm_up(rounds) for process, rounds in counts.items()}


def _after_warm_up(rounds: Mapping[int, Sequence[int]]) -> dict[int, int]:
    return {number: min(rounds[number]) for number in sorted(rounds)[WARM_UP_ROUNDS:]}
