"""What REST said of the tasks, during the run and at its end, held against what was promised."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

from tests.chaos.jobs import Job, output
from tests.chaos.story import TERMINAL_ATTEMPTS, TERMINAL_TASKS, AttemptStory, Glimpse, Story, TaskStory

_ORDER = {"pending": 1, "running": 2, "queued": 3, "completed": 4, "failed": 4, "cancelled": 4}
"""Of what a task goes through with one attempt; it is queued again only after the attempt."""


_STOPPED_CODES = frozenset({128 + 9, 128 + 15})
"""Of SIGKILL and SIGTERM."""


def acknowledged_tasks_are_there(story: Story) -> Iterator[str]:
    """What was answered with 201 is not lost."""
    for key, task_ids in story.acknowledged.items():
        for task_id in sorted(set(task_ids) - story.tasks.keys()):
            yield f"task {task_id} ({key}) was acknowledged and is not there"


def a_key_is_one_task(story: Story) -> Iterator[str]:
    """However often a submit is repeated with its key, it makes one task."""
    for key, task_ids in story.acknowledged.items():
        if len(set(task_ids)) > 1:
            yield f"{key} was answered with different tasks: {', '.join(sorted(set(task_ids)))}"
    names = Counter(task.name for task in story.tasks.values())
    for name, count in names.items():
        if count > 1:
            yield f"{name} was submitted with one key and is {count} tasks"


def every_task_has_ended(story: Story) -> Iterator[str]:
    """After everything came to rest, nothing waits or runs."""
    for task in story.tasks.values():
        if task.status not in TERMINAL_TASKS:
            yield f"task {task.task_id} ({task.name}) is still {task.status}"
        for attempt in task.attempts:
            if attempt.status not in TERMINAL_ATTEMPTS or attempt.finished_at is None:
                yield f"{_name(task, attempt)} is still {attempt.status}"


def attempts_are_numbered(story: Story) -> Iterator[str]:
    """1, 2, 3, ... each once."""
    for task in story.tasks.values():
        numbers = sorted(attempt.attempt for attempt in task.attempts)
        if numbers != list(range(1, len(numbers) + 1)):
            yield f"task {task.task_id} has the attempts {numbers}"


def attempts_follow_each_other(story: Story) -> Iterator[str]:
    """The next attempt is decided on when the one before has ended: one current attempt at a time."""
    for task in story.tasks.values():
        for before, after in pairwise(sorted(task.attempts, key=lambda attempt: attempt.attempt)):
            if before.finished_at is None or after.assigned_at < before.finished_at:
                yield f"{_name(task, after)} was assigned before attempt {before.attempt} had ended"


def an_attempt_ends_once(story: Story) -> Iterator[str]:
    """One terminal event an attempt, the one that its status names; and one end of the task."""
    for task in story.tasks.values():
        for attempt in task.attempts:
            ends = [e.kind for e in task.events if e.attempt == attempt.attempt and e.kind in TERMINAL_ATTEMPTS]
            if attempt.status in TERMINAL_ATTEMPTS and ends != [attempt.status]:
                yield f"{_name(task, attempt)} is {attempt.status}, and its events tell of {ends}"
        ends = [event.kind for event in task.events if event.attempt == 0 and event.kind in TERMINAL_TASKS]
        if len(ends) > 1:
            yield f"task {task.task_id} ended more than once: {ends}"


def nothing_goes_back(story: Story) -> Iterator[str]:
    """What REST has shown is durable: no step is taken back, and an end stays as it is."""
    for task_id, glimpses in story.glimpses.items():
        seen = list(glimpses)
        if task_id in story.tasks:
            seen.append(_last_glimpse(story.tasks[task_id]))
        for before, after in pairwise(seen):
            if (before.attempt, _ORDER[before.status]) > (after.attempt, _ORDER[after.status]):
                yield f"task {task_id} went from {_words(before)} to {_words(after)}"
            elif before.status in TERMINAL_TASKS and _end(before) != _end(after):
                yield f"task {task_id} had ended as {_words(before)} and became {_words(after)}"
            elif before.attempt == after.attempt and _moved(before, after):
                yield f"attempt {after.attempt} of task {task_id} moved: first {_words(before)}, then {_words(after)}"


def ends_are_honest(story: Story) -> Iterator[str]:
    """Every end follows from what the job does, from a cancel, or from a lost worker. Nothing else ends a container."""
    for task in story.tasks.values():
        job = story.job_of(task)
        if job is None:
            yield f"task {task.task_id} ({task.name}) was submitted by nobody"
            continue
        for attempt in task.attempts:
            yield from (f"{_name(task, attempt)} {why}" for why in _dishonest(task, attempt, job, story))
        yield from (f"task {task.task_id} {why}" for why in _dishonest_end(task, story))


def _dishonest(task: TaskStory, attempt: AttemptStory, job: Job, story: Story) -> Iterator[str]:
    match attempt.status:
        case "completed":
            if (attempt.exit_code, job.exit_code) != (0, 0):
                yield f"completed with {attempt.exit_code}, and its job ends with {job.exit_code}"
        case "failed":
            if not _ended_by_itself(attempt, job) and not _was_stopped_unseen(task, attempt, story):
                yield f"failed with {attempt.exit_code} ({attempt.reason}), and its job ends with {job.exit_code}"
        case "stopped":
            if task.task_id not in story.cancels_asked:
                yield "was stopped, and nobody cancelled it"


def _ended_by_itself(attempt: AttemptStory, job: Job) -> bool:
    expected = "failed" if job.exit_code else "completed"
    return (attempt.status, attempt.exit_code) == (expected, job.exit_code)


def _was_stopped_unseen(task: TaskStory, attempt: AttemptStory, story: Story) -> bool:
    """It was cancelled, and the worker that stopped it was killed before it could say that this was why."""
    return task.task_id in story.cancels_asked and attempt.exit_code in _STOPPED_CODES


def _dishonest_end(task: TaskStory, story: Story) -> Iterator[str]:
    last = max(task.attempts, key=lambda attempt: attempt.attempt, default=None)
    how = last.status if last else "nothing"
    if task.status == "cancelled":
        if task.task_id not in story.cancels_asked:
            yield "is cancelled, and nobody cancelled it"
    elif task.status == "failed" and how not in {"failed", "lost"}:
        yield f"is failed, and its last attempt is {how}"
    elif task.status == "completed" and how != "completed":
        yield f"is completed, and its last attempt is {how}"
    if last is not None and task.status in {"completed", "failed"} and task.exit_code != last.exit_code:
        yield f"has the exit code {task.exit_code}, and its last attempt {last.exit_code}"


def retries_are_counted(story: Story) -> Iterator[str]:
    """A task fails when its retries are used up, not before and not after. An attempt lost before it ran is free."""
    for task in story.tasks.values():
        job = story.job_of(task)
        if job is None or task.status not in {"completed", "failed"}:
            continue
        bad = sum(a.status == "failed" or (a.status == "lost" and a.running_at is not None) for a in task.attempts)
        if task.status == "failed" and bad != job.max_retries + 1:
            yield f"task {task.task_id} failed after {bad} bad attempts, and may have {job.max_retries} retries"
        if task.status == "completed" and bad > job.max_retries:
            yield f"task {task.task_id} completed after {bad} bad attempts, and may have {job.max_retries} retries"


def cancels_hold(story: Story) -> Iterator[str]:
    """After an accepted cancel no attempt begins, and the task is cancelled unless it completed first."""
    for task_id, accepted_at in story.cancels_accepted.items():
        task = story.tasks.get(task_id)
        if task is None:
            continue
        if task.status not in {"cancelled", "completed"}:
            yield f"the cancel of task {task_id} was accepted, and it is {task.status}"
        for attempt in task.attempts:
            if attempt.assigned_at > accepted_at:
                yield f"{_name(task, attempt)} was assigned after the cancel was accepted"


def logs_are_whole(story: Story) -> Iterator[str]:
    """No byte lost, none doubled: the whole output of an attempt that ended by itself, the beginning of any other's."""
    for task in story.tasks.values():
        job = story.job_of(task)
        for attempt in task.attempts if job else ():
            assert job is not None
            got, whole = story.logs.get((task.task_id, attempt.attempt)), output(job)
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


def _last_glimpse(task: TaskStory) -> Glimpse:
    last = max(task.attempts, key=lambda attempt: attempt.attempt, default=None)
    if last is None:
        return Glimpse(0.0, task.status, 0, None, None, task.exit_code)
    return Glimpse(0.0, task.status, last.attempt, last.worker_id, last.container_id, task.exit_code)


def _end(seen: Glimpse) -> tuple[str, int, int | None]:
    return seen.status, seen.attempt, seen.exit_code


def _moved(before: Glimpse, after: Glimpse) -> bool:
    """Another worker or another container for the same attempt."""
    pairs: Sequence[tuple[str | None, str | None]] = (
        (before.worker_id, after.worker_id),
        (before.container_id, after.container_id),
    )
    # A listing does not name the worker of an attempt that has ended.
    return any(None not in pair and pair[0] != pair[1] for pair in pairs)


def _name(task: TaskStory, attempt: AttemptStory) -> str:
    return f"attempt {attempt.attempt} of task {task.task_id} ({task.name})"


def _words(seen: Glimpse) -> str:
    where = f" on {seen.worker_id}" if seen.worker_id else ""
    code = "" if seen.exit_code is None else f" with {seen.exit_code}"
    return f"{seen.status} (attempt {seen.attempt}{where}){code}"
