"""Rules that compare the events of dockerd with the answers of REST."""

from collections import defaultdict
from collections.abc import Iterator

from tests.chaos.index import TERMINAL_ATTEMPTS, Attempt, Container, HistoryIndex

STALE_STOP_SECONDS = 3.0
"""The time for a worker that is back to stop lost containers, on a busy machine."""

SLACK_SECONDS = 0.5
"""dockerd sends the event of an end a little after ``inspect`` shows it."""

_LIVE_STATES = frozenset({"created", "running", "paused", "restarting"})


def containers_are_known(index: HistoryIndex) -> Iterator[str]:
    """Every container belongs to an attempt of the master, on the worker of that attempt."""
    for container in index.containers:
        attempt = index.attempts.get(container.key)
        if attempt is None:
            yield f"{container} belongs to an attempt that the master does not know"
        elif attempt.worker_id != container.worker_id:
            yield f"{container} belongs to an attempt that was given to {attempt.worker_id}"


def each_attempt_runs_once(index: HistoryIndex) -> Iterator[str]:
    """Each attempt has one container, started once. REST has its id."""
    ran: defaultdict[tuple[str, int], list[Container]] = defaultdict(list)
    for container in index.containers:
        if container.started:
            ran[container.key].append(container)
        if len(container.started) > 1:
            yield f"{container} was started {len(container.started)} times"
    for key, containers in ran.items():
        ids = [container.container_id for container in containers]
        if len(ids) > 1:
            yield f"attempt {key[1]} of task {key[0]} ran in {len(ids)} containers: {_short(ids)}"
        attempt = index.attempts.get(key)
        if attempt and attempt.container_id and attempt.container_id not in ids:
            yield f"{containers[0]} ran, and REST names {attempt.container_id[:12]}"


def every_exit_code_has_a_container(index: HistoryIndex) -> Iterator[str]:
    """Every exit code belongs to an observed container. Otherwise the other rules check nothing."""
    ran = {container.key for container in index.containers if container.started}
    for (task_id, number), attempt in index.attempts.items():
        if attempt.exit_code is not None and (task_id, number) not in ran:
            yield f"attempt {number} of task {task_id} ended with {attempt.exit_code} and no container of it was seen"


def exit_codes_match_docker(index: HistoryIndex) -> Iterator[str]:
    """The exit code of an attempt is that of its container."""
    for container in index.containers:
        attempt = index.attempts.get(container.key)
        if not container.started or attempt is None or attempt.status not in {"completed", "failed", "stopped"}:
            continue
        if attempt.exit_code != container.exit_code:
            yield f"{container} ended with {container.exit_code}, and the attempt has {attempt.exit_code}"


def containers_end_with_their_attempts(index: HistoryIndex) -> Iterator[str]:
    """A container ends before its attempt. The container of a lost attempt ends soon after its worker is back."""
    for container in index.containers:
        attempt = index.attempts.get(container.key)
        if not container.started or attempt is None or attempt.finished_at is None:
            continue
        if attempt.status == "lost":
            deadline = stale_deadline(index, attempt)
            if deadline is not None and _ran_after(container, deadline):
                yield f"{container} was lost and still ran {STALE_STOP_SECONDS:g} s after its worker was back"
        elif attempt.status in TERMINAL_ATTEMPTS and _ran_after(container, attempt.finished_at + SLACK_SECONDS):
            yield f"{container} still ran when the attempt had been reported {attempt.status}"


def attempts_do_not_overlap(index: HistoryIndex) -> Iterator[str]:
    """Two containers of a task never run at the same time, unless the older attempt was lost before the newer began."""
    by_task: defaultdict[str, list[Container]] = defaultdict(list)
    for container in index.containers:
        if container.started:
            by_task[container.task_id].append(container)
    for containers in by_task.values():
        for older in containers:
            for newer in containers:
                if older.attempt < newer.attempt and _ran_after(older, newer.started[0]):
                    attempt = index.attempts.get(older.key)
                    if not _was_lost_by(attempt, newer.started[0]):
                        yield f"{older} still ran when attempt {newer.attempt} started on {newer.worker_id}"


def stale_containers_end_first(index: HistoryIndex) -> Iterator[str]:
    """A worker that is back starts no new container while one of a lost attempt still runs."""
    for stale in index.containers:
        attempt = index.attempts.get(stale.key)
        if attempt is None or attempt.status != "lost" or attempt.finished_at is None or not stale.started:
            continue
        for fresh in index.containers:
            given = index.attempts.get(fresh.key)
            if (
                given is not None
                and fresh.worker_id == stale.worker_id
                and given.assigned_at > attempt.finished_at
                and fresh.started
                and stale.ran_at(fresh.started[0] - SLACK_SECONDS)
                and stale.ran_at(fresh.started[0])
            ):
                yield f"{fresh} started while {stale}, which was lost before, still ran"


def cancelled_containers_are_gone(index: HistoryIndex) -> Iterator[str]:
    """No container of a cancelled task still runs."""
    for container in index.containers:
        if container.task_id in index.cancels_accepted and container.started and container.died_at is None:
            yield f"{container} still runs, and its task was cancelled"


def no_container_is_left(index: HistoryIndex) -> Iterator[str]:
    """At the end there is no container of the fleet, neither running nor ended."""
    if index.final_listing is None:
        yield "the containers at the end are not known"
        return
    known = {container.container_id: container for container in index.containers}
    for container_id, state in index.final_listing.states.items():
        who = known.get(container_id) or f"container {container_id[:12]}, whose start was not seen,"
        yield f"{who} is left, {state}"


def stale_deadline(index: HistoryIndex, attempt: Attempt) -> float | None:
    """The time by which the container of a lost attempt must have ended: a while after its worker is back.

    ``None`` when the worker did not come back.
    """
    assert attempt.finished_at is not None
    back_at: float | None = None
    last = attempt.finished_at
    for seen in index.activity:
        if seen.time <= attempt.finished_at:
            continue
        if not seen.active.get(attempt.worker_id, False):
            back_at = None
        elif back_at is None or index.had_fault(attempt.worker_id, last, seen.time):
            back_at = seen.time
        elif seen.time - back_at > STALE_STOP_SECONDS:
            return back_at + STALE_STOP_SECONDS
        last = seen.time
    return None


def _ran_after(container: Container, time: float) -> bool:
    return container.died_at is None or container.died_at > time


def _was_lost_by(attempt: Attempt | None, time: float) -> bool:
    return (
        attempt is not None
        and attempt.status == "lost"
        and attempt.finished_at is not None
        and attempt.finished_at <= time
    )


def _short(ids: list[str]) -> str:
    return ", ".join(container_id[:12] for container_id in ids)
