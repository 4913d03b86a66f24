"""Rules about workers and processes: lost attempts, open files, anomalies."""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from tests.chaos.history import Fault
from tests.chaos.index import Attempt, HistoryIndex

SILENCE_SLACK_SECONDS = 1.0
"""The last heartbeat may be this much older than the fault."""

AFTERMATH_SECONDS = 20.0
"""The time after a fault in which a worker may be lost because of it."""

WARM_UP_ROUNDS = 5
MIN_ROUNDS = 10
"""Rounds after the warm-up that are needed for a slope."""

ALLOWED_GROWTH_FILES = 8
"""The allowed growth over all rounds: about one connection of every client."""


def no_anomaly_was_recorded(index: HistoryIndex) -> Iterator[str]:
    """There is no traceback, and the fleet recovered from every round."""
    for anomaly in index.anomalies:
        yield anomaly.what


_SILENT = "nothing was heard of it"
_FORGOTTEN = "came back without it"
"""Parts of the errors of lost attempts."""


def attempts_are_lost_only_after_a_fault(index: HistoryIndex) -> Iterator[str]:
    """An attempt is lost only after a fault that silenced its worker for the inactivity timeout. A worker that comes
    back still knows the containers that ran before the fault."""
    timeout = index.run.inactivity_timeout_seconds
    for container in index.containers:
        attempt = index.attempts.get(container.key)
        if attempt is None or attempt.status != "lost" or attempt.finished_at is None or not container.started:
            continue
        fault = first_fault_of_the_round(index, attempt)
        if fault is None:
            yield f"{container} was lost without a fault of its worker"
            continue
        ran_before = container.started[0] < fault.time
        why = attempt.error or ""
        if _FORGOTTEN in why and ran_before:
            yield f"{container} ran before '{fault.what}', and its worker came back without it"
        elif _FORGOTTEN not in why and _SILENT not in why:
            yield f"{container} was lost for an unknown reason: {why!r}"
        silent_seconds = attempt.finished_at - fault.time
        if ran_before and silent_seconds < timeout - SILENCE_SLACK_SECONDS:
            yield f"{container} was lost {silent_seconds:.1f} s after '{fault.what}', and the timeout is {timeout:g} s"


def first_fault_of_the_round(index: HistoryIndex, attempt: Attempt) -> Fault | None:
    """The fault that started the silence in which the attempt was lost."""
    assert attempt.finished_at is not None
    before = [
        fault
        for fault in index.faults_of(attempt.worker_id)
        if attempt.finished_at - AFTERMATH_SECONDS <= fault.time <= attempt.finished_at
    ]
    if not before:
        return None
    newest = max(fault.round for fault in before)
    return min((fault for fault in before if fault.round == newest), key=lambda fault: fault.time)


def open_files_do_not_grow(index: HistoryIndex) -> Iterator[str]:
    """The open files of a process do not grow over the rounds."""
    for process, levels in _levels(index).items():
        if len(levels) < MIN_ROUNDS:
            continue
        growth = slope(levels) * len(levels)
        if growth > ALLOWED_GROWTH_FILES:
            yield f"{process} gathered about {growth:.0f} open files over {len(levels)} rounds: {list(levels.values())}"


def slope(levels: Mapping[int, int]) -> float:
    """The median of the slopes between any two rounds (Theil-Sen estimator), which ignores outliers."""
    slopes = [(levels[later] - levels[sooner]) / (later - sooner) for sooner, later in combinations(sorted(levels), 2)]
    return statistics.median(slopes) if slopes else 0.0


def _levels(index: HistoryIndex) -> Mapping[str, Mapping[int, int]]:
    """For each process, the lowest number of open files in each round after the warm-up."""
    counts: defaultdict[str, defaultdict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for sample in index.open_files:
        counts[f"{sample.process} (pid {sample.pid})"][sample.round].append(sample.files)
    return {process: _after_warm_up(rounds) for process, rounds in counts.items()}


def _after_warm_up(rounds: Mapping[int, Sequence[int]]) -> dict[int, int]:
    return {number: min(rounds[number]) for number in sorted(rounds)[WARM_UP_ROUNDS:]}
