"""Faults of workers in master.tasks.capacity, and what becomes of tasks on workers that cannot start them"""

from collections.abc import Iterator

import pytest

from fleetpulse.master.tasks.capacity import (
    AVOIDED_SECONDS,
    FORGOTTEN_AFTER_SECONDS,
    LONGEST_AVOIDED_SECONDS,
    StartFailure,
    WorkerFaults,
)
from fleetpulse.master.tasks.records import TaskStatus
from fleetpulse.master.tasks.transitions import FREE_LOSSES, MACHINE_REASONS, MAX_WORKERS_TRIED
from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.master.fleet import wait_until
from tests.master.tasks.cluster import Cluster, FakeWorker, new_cluster


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with new_cluster() as cluster:
        yield cluster


def fail(worker: FakeWorker, task_id: str, attempt: int, reason: str) -> None:
    worker.wait_for_ack(worker.report(task_id, pb.ATTEMPT_PHASE_FAILED, attempt, reason=reason, message="it says so"))


def placed_on(worker: FakeWorker, task_id: str, attempt: int) -> bool:
    return (task_id, attempt) in worker.starts()


def degraded_reason(cluster: Cluster, worker_id: str) -> str | None:
    return cluster.fleet.manager.get_worker_telemetry(worker_id).allocation.degraded_reason


# The breaker


def disk_full(time: float) -> StartFailure:
    return StartFailure("disk_full", "no space", time)


def test_fault_is_avoided_for_longer_each_time_up_to_a_limit() -> None:
    faults, now, lengths = WorkerFaults(), 100.0, []
    for _ in range(8):
        faults.found("a", disk_full(now), now)
        fault = faults.get("a")
        assert fault is not None
        assert fault.refusal(now) == "it is degraded: disk_full: no space"
        lengths.append(fault.avoided_until - now)
        now = fault.avoided_until
        assert fault.refusal(now) is None
    assert lengths == [10.0, 20.0, 40.0, 80.0, 160.0, *[LONGEST_AVOIDED_SECONDS] * 3]


def test_one_attempt_tries_the_worker_and_another_when_it_says_nothing() -> None:
    faults = WorkerFaults()
    faults.found("a", disk_full(0.0), 0.0)
    faults.assigned("a", ("t", 1))
    faults.assigned("a", ("u", 1))
    fault = faults.get("a")
    assert fault is not None
    assert "one task tries it" in str(fault.refusal(AVOIDED_SECONDS))
    faults.ended("a", ("u", 1))
    assert faults.get("a") == fault
    faults.ended("a", ("t", 1))
    fault = faults.get("a")
    assert fault is not None
    assert fault.refusal(AVOIDED_SECONDS) is None


def test_good_start_heals_and_older_failures_say_nothing() -> None:
    faults = WorkerFaults()
    faults.found("a", disk_full(1.0), 1.0)
    assert faults.started("a", 5.0)
    faults.found("a", disk_full(4.0), 6.0)
    assert faults.get("a") is None
    faults.found("a", disk_full(7.0), 7.0)
    faults.found("a", disk_full(6.5), 7.0 + AVOIDED_SECONDS)
    fault = faults.get("a")
    assert fault is not None
    assert fault.times == 1


def test_faults_are_due_once_and_forgotten_when_nobody_tries() -> None:
    faults = WorkerFaults()
    faults.found("a", disk_full(0.0), 0.0)
    assert faults.due(0.0, 9.0) == []
    assert faults.due(9.0, 10.0) == ["a"]
    assert faults.due(10.0, 11.0) == []
    assert faults.due(11.0, 10.0 + FORGOTTEN_AFTER_SECONDS) == ["a"]
    assert faults.get("a") is None


# In the service


@pytest.mark.parametrize("reason", ["disk_full", "docker_unavailable", "container_failed", "image_pull_failed"])
def test_broken_worker_does_not_eat_the_queue(cluster: Cluster, reason: str) -> None:
    """All tasks of a burst run, on the worker that can, though the other is free sooner each time."""
    broken, well = cluster.worker("broken", cores=8.0), cluster.worker("well", cores=4.0)
    tasks = [cluster.submit(cpu_required=1.0) for _ in range(20)]
    waiting, number = dict.fromkeys(tasks, 1), 0
    while waiting:
        wait_until(lambda: any(placed_on(w, t, n) for w in (broken, well) for t, n in waiting.items()))
        for task_id, attempt in list(waiting.items()):
            if placed_on(broken, task_id, attempt):
                number += 1
                fail(broken, task_id, attempt, reason)
                waiting[task_id] += 1
            elif placed_on(well, task_id, attempt):
                well.run(task_id, attempt)
                well.wait_for_ack(well.report(task_id, pb.ATTEMPT_PHASE_COMPLETED, attempt, exit_code=0))
                del waiting[task_id]
    assert all(cluster.task(task_id).status is TaskStatus.COMPLETED for task_id in tasks)
    assert all(cluster.task(task_id).retries_used == 0 for task_id in tasks)
    # Those that were placed at once; where the fault is unclear, each at most once until another worker ran some.
    assert 0 < number <= (8 if reason in MACHINE_REASONS else len(tasks))
    assert reason in str(degraded_reason(cluster, "broken"))
    assert degraded_reason(cluster, "well") is None


def test_task_waits_for_the_only_worker_and_a_good_start_heals_it(cluster: Cluster) -> None:
    worker = cluster.worker()
    task_id = cluster.placed(worker)
    fail(worker, task_id, 1, "disk_full")
    assert "is degraded: disk_full: it says so" in str(cluster.tasks.queue_reason(cluster.task(task_id)))
    other = cluster.submit()
    cluster.pass_time(AVOIDED_SECONDS + 0.1, worker)
    wait_until(lambda: placed_on(worker, task_id, 2) or placed_on(worker, other, 1))
    tried, waits = (task_id, other) if placed_on(worker, task_id, 2) else (other, task_id)
    assert "one task tries it" in str(cluster.tasks.queue_reason(cluster.task(waits)))
    worker.run(tried, cluster.task(tried).attempt)
    wait_until(
        lambda: any(started == waits for started, number in worker.starts() if (started, number) != (task_id, 1))
    )
    assert degraded_reason(cluster, "rack-7") is None


def test_undrain_has_the_worker_tried_at_once(cluster: Cluster) -> None:
    worker = cluster.worker()
    task_id = cluster.placed(worker)
    fail(worker, task_id, 1, "disk_full")
    cluster.tasks.undrain("rack-7")
    wait_until(lambda: placed_on(worker, task_id, 2))


def test_machine_that_never_starts_the_task_uses_up_retries_in_the_end(cluster: Cluster) -> None:
    worker = cluster.worker()
    task_id = cluster.placed(worker)
    for attempt in range(1, FREE_LOSSES + 2):
        wait_until(lambda: placed_on(worker, task_id, attempt))  # noqa: B023 - waited for at once
        fail(worker, task_id, attempt, "disk_full")
        cluster.tasks.undrain("rack-7")
    assert cluster.task(task_id).status is TaskStatus.FAILED


@pytest.mark.parametrize("reason", ["image_not_found", "image_invalid"])
def test_image_that_no_worker_can_pull_fails_once_on_each_of_a_few(cluster: Cluster, reason: str) -> None:
    workers = [cluster.worker(f"w{number}") for number in range(MAX_WORKERS_TRIED + 2)]
    task_id = cluster.submit(max_retries=5)
    for attempt in range(1, MAX_WORKERS_TRIED + 1):
        wait_until(lambda: any(placed_on(worker, task_id, attempt) for worker in workers))  # noqa: B023
        fail(next(worker for worker in workers if placed_on(worker, task_id, attempt)), task_id, attempt, reason)
    task = cluster.task(task_id)
    assert (task.status, task.outcome.reason, task.retries_used) == (TaskStatus.FAILED, reason, 0)
    assert len({attempt.worker_id for attempt in cluster.attempts(task_id)}) == MAX_WORKERS_TRIED
    assert all(degraded_reason(cluster, worker.worker_id) is None for worker in workers)


def test_task_of_which_only_a_small_other_worker_is_left_stays(cluster: Cluster) -> None:
    """Elsewhere counts only where it could run."""
    large = cluster.worker("large", cores=4.0)
    cluster.worker("small", cores=0.5)
    task_id = cluster.placed(large, max_retries=1)
    fail(large, task_id, 1, "image_pull_failed")
    assert cluster.task(task_id).retries_used == 1
    cluster.pass_time(2.0, large)
    wait_until(lambda: placed_on(large, task_id, 2))


def test_task_that_avoids_a_worker_returns_when_the_others_are_away(cluster: Cluster) -> None:
    first, second = cluster.worker("a"), cluster.worker("b")
    blocker = cluster.submit(cpu_required=4.0)
    wait_until(lambda: placed_on(first, blocker, 1) or placed_on(second, blocker, 1))
    busy, idle = (first, second) if placed_on(first, blocker, 1) else (second, first)
    task_id = cluster.placed(idle)
    fail(idle, task_id, 1, "container_failed")
    reason = f"no worker has 1 CPU core free: the most is 0 on {busy.worker_id}, of 4; it could not be started on "
    wait_until(lambda: cluster.tasks.queue_reason(cluster.task(task_id)) == reason + idle.worker_id)
    cluster.pass_time(31.0, idle)
    wait_until(lambda: placed_on(idle, task_id, 2))


def test_cancelled_task_that_fails_to_start_is_cancelled(cluster: Cluster) -> None:
    worker = cluster.worker()
    task_id = cluster.placed(worker)
    cluster.worker("other")
    cluster.tasks.cancel(task_id)
    fail(worker, task_id, 1, "disk_full")
    assert cluster.task(task_id).status is TaskStatus.CANCELLED
