"""What dockerd did, held against what REST says: Docker is the witness that FleetPulse cannot talk to."""

from collections import defaultdict
from collections.abc import Iterator

from tests.chaos.story import TERMINAL_ATTEMPTS, AttemptStory, Container, Story

STALE_STOP_SECONDS = 3.0
"""What a worker that is back has to end what is not its own any more, on a busy machine."""

SLACK_SECONDS = 0.5
"""dockerd tells of a container's end a little after it shows the end to who inspects it."""

_LIVE_STATES = frozenset({"created", "running", "paused", "restarting"})


def containers_are_known(story: Story) -> Iterator[str]:
    """A container belongs to an attempt that the master decided on, on the worker that it chose."""
    for container in story.containers:
        attempt = story.attempts.get(container.key)
        if attempt is None:
            yield f"{container} belongs to an attempt that the master does not know"
        elif attempt.worker_id != container.worker_id:
            yield f"{container} belongs to an attempt that was given to {attempt.worker_id}"


def an_attempt_runs_once(story: Story) -> Iterator[str]:
    """One container an attempt, started once, whatever was killed meanwhile; and REST names that one."""
    ran: defaultdict[tuple[str, int], list[Container]] = defaultdict(list)
    for container in story.containers:
        if container.started:
            ran[container.key].append(container)
        if len(container.started) > 1:
            yield f"{container} was started {len(container.started)} times"
    for key, containers in ran.items():
        ids = [container.container_id for container in containers]
        if len(ids) > 1:
            yield f"attempt {key[1]} of task {key[0]} ran in {len(ids)} containers: {_short(ids)}"
        attempt = story.attempts.get(key)
        if attempt and attempt.container_id and attempt.container_id not in ids:
            yield f"{containers[0]} ran, and REST names {attempt.container_id[:12]}"


def docker_was_seen(story: Story) -> Iterator[str]:
    """Whatever ended with an exit code ran in a container that was watched; otherwise the other rules are blind."""
    ran = {container.key for container in story.containers if container.started}
    for (task_id, number), attempt in story.attempts.items():
        if attempt.exit_code is not None and (task_id, number) not in ran:
            yield f"attempt {number} of task {task_id} ended with {attempt.exit_code} and no container of it was seen"


def exit_codes_are_true(story: Story) -> Iterator[str]:
    """The exit code is the one that Docker saw."""
    for container in story.containers:
        attempt = story.attempts.get(container.key)
        if not container.started or attempt is None or attempt.status not in {"completed", "failed", "stopped"}:
            continue
        if attempt.exit_code != container.exit_code:
            yield f"{container} ended with {container.exit_code}, and the attempt has {attempt.exit_code}"


def containers_end_with_their_attempts(story: Story) -> Iterator[str]:
    """When an end was reported the container had ended. One that was lost may run on until its worker is back."""
    for container in story.containers:
        attempt = story.attempts.get(container.key)
        if not container.started or attempt is None or attempt.finished_at is None:
            continue
        if attempt.status == "lost":
            deadline = stale_deadline(story, attempt)
            if deadline is not None and _ran_after(container, deadline):
                yield f"{container} was lost and still ran {STALE_STOP_SECONDS:g} s after its worker was back"
        elif attempt.status in TERMINAL_ATTEMPTS and _ran_after(container, attempt.finished_at + SLACK_SECONDS):
            yield f"{container} still ran when the attempt had been reported {attempt.status}"


def attempts_do_not_overlap(story: Story) -> Iterator[str]:
    """No two containers of a task run at a time, unless the older attempt was declared lost before the newer began."""
    by_task: defaultdict[str, list[Container]] = defaultdict(list)
    for container in story.containers:
        if container.started:
            by_task[container.task_id].append(container)
    for containers in by_task.values():
        for older in containers:
            for newer in containers:
                if older.attempt < newer.attempt and _ran_after(older, newer.started[0]):
                    attempt = story.attempts.get(older.key)
                    if not _was_lost_by(attempt, newer.started[0]):
                        yield f"{older} still ran when attempt {newer.attempt} started on {newer.worker_id}"


def stale_containers_end_first(story: Story) -> Iterator[str]:
    """A worker that is back starts nothing new while something runs on it that it lost before."""
    for stale in story.containers:
        attempt = story.attempts.get(stale.key)
        if attempt is None or attempt.status != "lost" or attempt.finished_at is None or not stale.started:
            continue
        for fresh in story.containers:
            given = story.attempts.get(fresh.key)
            if (
                given is not None
                and fresh.worker_id == stale.worker_id
                and given.assigned_at > attempt.finished_at
                and fresh.started
                and stale.ran_at(fresh.started[0] - SLACK_SECONDS)
                and stale.ran_at(fresh.started[0])
            ):
                yield f"{fresh} started while {stale}, which was lost before, still ran"


def cancelled_containers_are_gone(story: Story) -> Iterator[str]:
    """No container of a cancelled task is left running."""
    for container in story.containers:
        if container.task_id in story.cancels_accepted and container.started and container.died_at is None:
            yield f"{container} still runs, and its task was cancelled"


def no_container_is_left(story: Story) -> Iterator[str]:
    """At the end Docker has nothing of the fleet any more, neither running nor ended."""
    if story.last_look is None:
        yield "nobody looked at what was left"
        return
    known = {container.container_id: container for container in story.containers}
    for container_id, state in story.last_look.states.items():
        who = known.get(container_id) or f"container {container_id[:12]}, which nobody saw begin,"
        yield f"{who} is left, {state}"


def stale_deadline(story: Story, attempt: AttemptStory) -> float | None:
    """When the container of a lost attempt must have ended: its worker has been back, undisturbed, for long enough.

    ``None`` when the worker never was.
    """
    assert attempt.finished_at is not None
    back_at: float | None = None
    last = attempt.finished_at
    for seen in story.activity:
        if seen.time <= attempt.finished_at:
            continue
        if not seen.active.get(attempt.worker_id, False):
            back_at = None
        elif back_at is None or story.was_broken(attempt.worker_id, last, seen.time):
            back_at = seen.time
        elif seen.time - back_at > STALE_STOP_SECONDS:
            return back_at + STALE_STOP_SECONDS
        last = seen.time
    return None


def _ran_after(container: Container, time: float) -> bool:
    return container.died_at is None or container.died_at > time


def _was_lost_by(attempt: AttemptStory | None, time: float) -> bool:
    return (
        attempt is not None
        and attempt.status == "lost"
        and attempt.finished_at is not None
        and attempt.finished_at <= time
    )


def _short(ids: list[str]) -> str:
    return ", ".join(container_id[:12] for container_id in ids)
