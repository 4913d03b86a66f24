"""Rules about tasks, as REST shows them during the run and at its end."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

from tests.chaos.index import TERMINAL_ATTEMPTS, TERMINAL_TASKS, Attempt, HistoryIndex, Task, TaskObservation
from tests.chaos.jobs import Job, output

_ORDER = {"pending": 1, "running": 2, "queued": 3, "completed": 4, "failed": 4, "cancelled": 4}
"""The order of the statuses of a task within one attempt. It is queued again only after the attempt."""


_STOPPED_CODES = frozenset({128 + 9, 128 + 15})
"""The exit codes of SIGKILL and SIGTERM."""


def acknowledged_tasks_exist(index: HistoryIndex) -> Iterator[str]:
    """A task that was acknowledged with 201 exists."""
    for key, task_ids in index.acknowledged.items():
        for task_id in sorted(set(task_ids) - index.tasks.keys()):
            yield f"task {task_id} ({key}) was acknowledged and is not there"


def each_key_makes_one_task(index: HistoryIndex) -> Iterator[str]:
    """Repeated submits with one key make one task."""
    for key, task_ids in index.acknowledged.items():
        if len(set(task_ids)) > 1:
            yield f"{key} was answered with different tasks: {', '.join(sorted(set(task_ids)))}"
    names = Counter(task.name for task in index.tasks.values())
    for name, count in names.items():
        if count > 1:
            yield f"{name} was submitted with one key and is {count} tasks"


def every_task_has_ended(index: HistoryIndex) -> Iterator[str]:
    """At the end no task waits or runs."""
    for task in index.tasks.values():
        if task.status not in TERMINAL_TASKS:
            yield f"task {task.task_id} ({task.name}) is still {task.status}"
        for attempt in task.attempts:
            if attempt.status not in TERMINAL_ATTEMPTS or attempt.finished_at is None:
                yield f"{_name(task, attempt)} is still {attempt.status}"


def attempts_are_numbered(index: HistoryIndex) -> Iterator[str]:
    """The attempts of a task are numbered 1, 2, 3, ... without gaps."""
    for task in index.tasks.values():
        numbers = sorted(attempt.attempt for attempt in task.attempts)
        if numbers != list(range(1, len(numbers) + 1)):
            yield f"task {task.task_id} has the attempts {numbers}"


def attempts_follow_each_other(index: HistoryIndex) -> Iterator[str]:
    """An attempt is assigned after the one before it has ended."""
    for task in index.tasks.values():
        for before, after in pairwise(sorted(task.attempts, key=lambda attempt: attempt.attempt)):
            if before.finished_at is None or after.assigned_at < before.finished_at:
                yield f"{_name(task, after)} was assigned before attempt {before.attempt} had ended"


def each_attempt_ends_once(index: HistoryIndex) -> Iterator[str]:
    """Each attempt has one terminal event, that of its status. Each task ends once."""
    for task in index.tasks.values():
        for attempt in task.attempts:
            ends = [e.kind for e in task.events if e.attempt == attempt.attempt and e.kind in TERMINAL_ATTEMPTS]
            if attempt.status in TERMINAL_ATTEMPTS and ends != [attempt.status]:
                yield f"{_name(task, attempt)} is {attempt.status}, and its events have {ends}"
        ends = [event.kind for event in task.events if event.attempt == 0 and event.kind in TERMINAL_TASKS]
        if len(ends) > 1:
            yield f"task {task.task_id} ended more than once: {ends}"


def status_never_goes_back(index: HistoryIndex) -> Iterator[str]:
    """A status never goes back, and an end does not change."""
    for task_id, observations in index.observations.items():
        seen = list(observations)
        if task_id in index.tasks:
            seen.append(_last_observation(index.tasks[task_id]))
        for before, after in pairwise(seen):
            if (before.attempt, _ORDER[before.status]) > (after.attempt, _ORDER[after.status]):
                yield f"task {task_id} went from {_describe(before)} to {_describe(after)}"
            elif before.status in TERMINAL_TASKS and _end(before) != _end(after):
                yield f"task {task_id} had ended as {_describe(before)} and became {_describe(after)}"
            elif before.attempt == after.attempt and _moved(before, after):
                yield f"attempt {after.attempt} of task {task_id} moved: {_describe(before)}, then {_describe(after)}"


def ends_have_a_cause(index: HistoryIndex) -> Iterator[str]:
    """Every end has a cause: the job itself, a cancel, or a lost worker."""
    for task in index.tasks.values():
        job = index.job_of(task)
        if job is None:
            yield f"task {task.task_id} ({task.name}) was never submitted"
            continue
        for attempt in task.attempts:
            yield from (f"{_name(task, attempt)} {why}" for why in _unexplained_end(task, attempt, job, index))
        yield from (f"task {task.task_id} {why}" for why in _unexplained_task_end(task, index))


def _unexplained_end(task: Task, attempt: Attempt, job: Job, index: HistoryIndex) -> Iterator[str]:
    match attempt.status:
        case "completed":
            if (attempt.exit_code, job.exit_code) != (0, 0):
                yield f"completed with {attempt.exit_code}, and its job ends with {job.exit_code}"
        case "failed":
            if not _ended_by_itself(attempt, job) and not _was_stopped_unseen(task, attempt, index):
                yield f"failed with {attempt.exit_code} ({attempt.reason}), and its job ends with {job.exit_code}"
        case "stopped":
            if task.task_id not in index.cancels_sent:
                yield "was stopped without a cancel"


def _ended_by_itself(attempt: Attempt, job: Job) -> bool:
    expected = "failed" if job.exit_code else "completed"
    return (attempt.status, attempt.exit_code) == (expected, job.exit_code)


def _was_stopped_unseen(task: Task, attempt: Attempt, index: HistoryIndex) -> bool:
    """It was cancelled, and its worker was killed before it could report the reason."""
    return task.task_id in index.cancels_sent and attempt.exit_code in _STOPPED_CODES


def _unexplained_task_end(task: Task, index: HistoryIndex) -> Iterator[str]:
    last = max(task.attempts, key=lambda attempt: attempt.attempt, default=None)
    how = last.status if last else "nothing"
    if task.status == "cancelled":
        if task.task_id not in index.cancels_sent:
            yield "is cancelled without a cancel"
    elif task.status == "failed" and how not in {"failed", "lost"}:
        yield f"is failed, and its last attempt is {how}"
    elif task.status == "completed" and how != "completed":
        yield f"is completed, and its last attempt is {how}"
    if last is not None and task.status in {"completed", "failed"} and task.exit_code != last.exit_code:
        yield f"has the exit code {task.exit_code}, and its last attempt {last.exit_code}"


def retries_are_counted(index: HistoryIndex) -> Iterator[str]:
    """A task fails when its retries are used up. An attempt that was lost before it ran does not count."""
    for task in index.tasks.values():
        job = index.job_of(task)
        if job is None or task.status not in {"completed", "failed"}:
            continue
        bad = sum(a.status == "failed" or (a.status == "lost" and a.running_at is not None) for a in task.attempts)
        if task.status == "failed" and bad != job.max_retries + 1:
            yield f"task {task.task_id} failed after {bad} bad attempts, and may have {job.max_retries} retries"
        if task.status == "completed" and bad > job.max_retries:
            yield f"task {task.task_id} completed after {bad} bad attempts, and may have {job.max_retries} retries"


def cancelled_tasks_stay_cancelled(index: HistoryIndex) -> Iterator[str]:
    """After an accepted cancel no attempt is assigned, and the task is cancelled unless it completed first."""
    for task_id, accepted_at in index.cancels_accepted.items():
        task = index.tasks.get(task_id)
        if task is None:
            continue
        if task.status not in {"cancelled", "completed"}:
            yield f"the cancel of task {task_id} was accepted, and it is {task.status}"
        for attempt in task.attempts:
            if attempt.assigned_at > accepted_at:
                yield f"{_name(task, attempt)} was assigned after the cancel was accepted"


def logs_are_complete(index: HistoryIndex) -> Iterator[str]:
    """A log is the complete output of an attempt that ended by itself, or the beginning of the output."""
    for task in index.tasks.values():
        job = index.job_of(task)
        for attempt in task.attempts if job else ():
            assert job is not None
            got, whole = index.logs.get((task.task_id, attempt.attempt)), output(job)
            if got is None:
                yield f"{_name(task, attempt)} has no log"
            elif not whole.startswith(got):
                yield f"the log of {_name(task, attempt)} {_difference(got, whole)}"
            elif _ended_by_itself(attempt, job) and got != whole:
                yield f"the log of {_name(task, attempt)} ends after {len(got)} of {len(whole)} bytes"


def _difference(got: bytes, whole: bytes) -> str:
    at = next((i for i, (a, b) in enumerate(zip(got, whole, strict=False)) if a != b), min(len(got), len(whole)))
    expected, instead = whole[at : at + 40], got[at : at + 40]
    return f"has {len(got)} bytes for {len(whole)}; at byte {at} it reads {instead!r} instead of {expected!r}"


def _last_observation(task: Task) -> TaskObservation:
    last = max(task.attempts, key=lambda attempt: attempt.attempt, default=None)
    if last is None:
        return TaskObservation(0.0, task.status, 0, None, None, task.exit_code)
    return TaskObservation(0.0, task.status, last.attempt, last.worker_id, last.container_id, task.exit_code)


def _end(seen: TaskObservation) -> tuple[str, int, int | None]:
    return seen.status, seen.attempt, seen.exit_code


def _moved(before: TaskObservation, after: TaskObservation) -> bool:
    """Another worker or another container for the same attempt."""
    pairs: Sequence[tuple[str | None, str | None]] = (
        (before.worker_id, after.worker_id),
        (before.container_id, after.container_id),
    )
    # A listing does not name the worker of an attempt that has ended.
    return any(None not in pair and pair[0] != pair[1] for pair in pairs)


def _name(task: Task, attempt: Attempt) -> str:
    return f"attempt {attempt.attempt} of task {task.task_id} ({task.name})"


def _describe(seen: TaskObservation) -> str:
    where = f" on {seen.worker_id}" if seen.worker_id else ""
    code = "" if seen.exit_code is None else f" with {seen.exit_code}"
    return f"{seen.status} (attempt {seen.attempt}{where}){code}"
