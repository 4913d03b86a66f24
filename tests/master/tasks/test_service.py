"""master.tasks.service with the registry, the scheduler and the report handler, on a real store"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetpulse.master.errors import InvalidMessage, TaskAlreadyFinished, TaskRefused, UnknownTask, UnknownWorker
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.tasks.records import AttemptStatus, Idempotency, TaskQuery, TaskStatus
from fleetpulse.master.tasks.service import TaskService, apply_policy
from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.policy import TaskPolicy
from tests.master.fleet import wait_until
from tests.master.requests import task_request
from tests.master.tasks.cluster import GIB, SMALL, Cluster, FakeWorker, new_cluster, running_cluster


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with new_cluster() as cluster:
        yield cluster


def metric(cluster: Cluster, name: str, **labels: str) -> float | None:
    return cluster.fleet.metric(name, **labels)


# From the submit to the end


def test_task_from_submit_to_exit_code(cluster: Cluster) -> None:
    worker = cluster.worker()
    task_id = cluster.placed(worker, command=("echo", "hi"), env={"A": "b"})
    (start,) = [message.start_task for message in worker.sent if message.HasField("start_task")]
    assert (start.docker_image, list(start.command), dict(start.env)) == ("busybox:1", ["echo", "hi"], {"A": "b"})
    assert cluster.task(task_id).status is TaskStatus.PENDING
    assert metric(cluster, "tasks", status="pending") == 1

    worker.report(task_id, pb.ATTEMPT_PHASE_PREPARING, message="pulling")
    worker.run(task_id)
    assert cluster.task(task_id).status is TaskStatus.RUNNING
    worker.log(task_id, 0, b"hi\n")
    number = worker.report(task_id, pb.ATTEMPT_PHASE_COMPLETED, exit_code=0, oom_killed=False)
    worker.wait_for_ack(number)

    task = cluster.task(task_id)
    assert (task.status, task.outcome.exit_code, task.outcome.oom_killed) == (TaskStatus.COMPLETED, 0, False)
    assert [attempt.status for attempt in cluster.attempts(task_id)] == [AttemptStatus.COMPLETED]
    assert cluster.tasks.read_log(task_id, None, 0, 100)[1].data == b"hi\n"
    kinds = [event.kind for event in cluster.store.details(task_id).events]
    assert kinds == ["submitted", "assigned", "preparing", "running", "completed"]
    assert not any(ack.stale for ack in worker.acks())
    assert metric(cluster, "tasks", status="completed") == 1
    assert metric(cluster, "tasks", status="running") == 0
    assert metric(cluster, "tasks_finished_total", status="completed") == 1
    assert metric(cluster, "task_queue_wait_seconds_count") == 1
    assert metric(cluster, "task_run_seconds_count") == 1


def test_allocation_is_published_until_the_task_ends(cluster: Cluster) -> None:
    worker = cluster.worker(gpus=("GPU-a", "GPU-b"))
    task_id = cluster.placed(worker, cpu_required=1.5, memory_required=1024, gpu_required=1)
    allocation = cluster.fleet.manager.get_worker_telemetry("rack-7").allocation
    assert (allocation.cpu_cores, allocation.memory_bytes, allocation.gpu_uuids) == (1.5, GIB, ("GPU-a",))
    assert allocation.refusal is None
    worker.report(task_id, pb.ATTEMPT_PHASE_FAILED, exit_code=1, reason="exit_code")
    assert cluster.fleet.manager.get_worker_telemetry("rack-7").allocation.tasks == 0


def test_queued_task_is_placed_when_capacity_is_freed(cluster: Cluster) -> None:
    worker = cluster.worker(cores=1.0)
    first = cluster.placed(worker)
    second = cluster.submit()
    reason = cluster.tasks.queue_reason(cluster.task(second))
    assert reason is not None
    assert "CPU" in reason
    worker.report(first, pb.ATTEMPT_PHASE_COMPLETED, exit_code=0)
    wait_until(lambda: (second, 1) in worker.starts())
    assert cluster.tasks.queue_reason(cluster.task(second)) is None


def test_failed_attempt_is_retried_after_a_pause(cluster: Cluster) -> None:
    worker = cluster.worker()
    task_id = cluster.placed(worker, max_retries=1)
    number = worker.report(task_id, pb.ATTEMPT_PHASE_FAILED, exit_code=1, reason="exit_code")
    worker.wait_for_ack(number)
    task = cluster.task(task_id)
    assert (task.status, task.not_before) == (TaskStatus.QUEUED, cluster.fleet.clock.wall + 1.0)
    assert "waits 1 s after a failed attempt" in str(cluster.tasks.queue_reason(task))
    cluster.pass_time(1.0, worker)
    cluster.tasks._registry.on_capacity_freed()
    wait_until(lambda: (task_id, 2) in worker.starts())
    number = worker.report(task_id, pb.ATTEMPT_PHASE_FAILED, attempt=2, exit_code=3, reason="exit_code")
    worker.wait_for_ack(number)
    assert (cluster.task(task_id).status, cluster.task(task_id).outcome.exit_code) == (TaskStatus.FAILED, 3)


# Submit and look


def test_idempotency_key_stands_for_one_task(cluster: Cluster) -> None:
    first, created = cluster.tasks.submit(SMALL, Idempotency("key", "digest"))
    again, created_again = cluster.tasks.submit(SMALL, Idempotency("key", "digest"))
    assert (created, created_again, again.task_id) == (True, False, first.task_id)
    assert metric(cluster, "tasks", status="queued") == 1


def test_unknown_tasks_and_workers_are_errors(cluster: Cluster) -> None:
    with pytest.raises(UnknownTask):
        cluster.tasks.details("task-9")
    with pytest.raises(UnknownTask):
        cluster.tasks.cancel("task-9")
    with pytest.raises(UnknownTask):
        cluster.tasks.read_log("task-9", None, 0, 10)
    with pytest.raises(UnknownWorker):
        cluster.tasks.worker_attempts("rack-9")
    with pytest.raises(UnknownWorker):
        cluster.tasks.drain("rack-9", "")


def test_watch_is_notified_of_every_durable_change(cluster: Cluster) -> None:
    worker = cluster.worker()
    task_id = cluster.submit()
    with cluster.tasks.watch(task_id) as watch:
        assert watch.wait(5.0)
        wait_until(lambda: bool(worker.starts()))
        worker.run(task_id)
        assert watch.wait(5.0)
        worker.log(task_id, 0, b"x")
        assert watch.wait(5.0)
        assert cluster.tasks.read_log(task_id, 1, 0, 10)[1].data == b"x"
        assert not watch.wait(0.01)
    assert len(cluster.tasks._registry.watchers) == 0


# Cancel


def test_queued_task_is_cancelled_at_once(cluster: Cluster) -> None:
    task_id = cluster.submit()
    assert cluster.tasks.cancel(task_id).status is TaskStatus.CANCELLED
    assert cluster.task(task_id).status is TaskStatus.CANCELLED
    with pytest.raises(TaskAlreadyFinished):
        cluster.tasks.cancel(task_id)
    cluster.worker()
    assert cluster.tasks._scheduler.run_round() == 0


def test_running_task_is_cancelled_when_its_worker_reports_the_end(cluster: Cluster) -> None:
    worker = cluster.worker()
    task_id = cluster.placed(worker)
    worker.run(task_id)
    assert cluster.tasks.cancel(task_id).status is TaskStatus.RUNNING
    assert cluster.tasks.cancel(task_id).cancel_requested_at is not None
    assert worker.stops() == [(task_id, 1, False)]
    worker.wait_for_ack(worker.report(task_id, pb.ATTEMPT_PHASE_STOPPED, exit_code=143, reason="stopped"))
    task = cluster.task(task_id)
    assert (task.status, task.outcome.reason, task.outcome.exit_code) == (TaskStatus.CANCELLED, "cancelled", 143)


def test_cancelled_task_that_had_completed_is_completed(cluster: Cluster) -> None:
    worker = cluster.worker()
    task_id = cluster.placed(worker)
    cluster.tasks.cancel(task_id)
    worker.wait_for_ack(worker.report(task_id, pb.ATTEMPT_PHASE_COMPLETED, exit_code=0))
    assert cluster.task(task_id).status is TaskStatus.COMPLETED


def test_stop_is_repeated_when_the_worker_is_back(cluster: Cluster) -> None:
    worker = cluster.worker()
    task_id = cluster.placed(worker)
    worker.hang_up()
    cluster.tasks.cancel(task_id)
    worker.register((task_id, 1))
    assert [kept.id.task_id for kept in worker.kept] == [task_id]
    assert worker.stops() == [(task_id, 1, False)]


# Fencing


def stale(worker: FakeWorker, number: int) -> bool:
    worker.wait_for_ack(number)
    return [ack.stale for ack in worker.acks() if ack.update_number == number] == [True]


def test_stale_reports_are_refused_and_counted(cluster: Cluster) -> None:
    worker, other = cluster.worker(), cluster.worker("rack-8", cores=0.5)
    task_id = cluster.placed(worker)
    for who, attempt in ((other, 1), (worker, 2)):
        assert stale(who, who.report(task_id, pb.ATTEMPT_PHASE_COMPLETED, attempt, exit_code=0))
    other.log(task_id, 0, b"not mine")
    assert other.acks()[-1].stale
    assert metric(cluster, "task_reports_stale_total") == 3
    assert cluster.task(task_id).status is TaskStatus.PENDING
    worker.wait_for_ack(worker.report(task_id, pb.ATTEMPT_PHASE_COMPLETED, exit_code=0))
    assert stale(worker, worker.report(task_id, pb.ATTEMPT_PHASE_FAILED, exit_code=1))
    assert cluster.task(task_id).status is TaskStatus.COMPLETED
    other.report("task-none", pb.ATTEMPT_PHASE_COMPLETED, exit_code=0)
    # What is asked later is answered later, so the worker's own past is known to have been let pass.
    wait_until(lambda: len(other.violations) == 3)
    assert other.violations == [
        ("report", f"{task_id}/1", "it is of worker rack-7"),
        ("log", f"{task_id}/1", "it is of worker rack-7"),
        ("report", "task-none/1", "there is no such attempt"),
    ]
    assert worker.violations == [("report", f"{task_id}/2", "there is no such attempt")]
    assert metric(cluster, "task_reports_foreign_total") == 4
    assert metric(cluster, "task_reports_stale_total") == 5


def test_pending_end_is_acknowledged_to_its_own_worker_only(cluster: Cluster) -> None:
    worker, other = cluster.worker(), cluster.worker("rack-8", cores=0.5)
    task_id = cluster.placed(worker)
    worker.run(task_id)
    worker.log(task_id, 0, b"all of it")
    own = worker.report(task_id, pb.ATTEMPT_PHASE_COMPLETED, exit_code=0)
    # Nothing has switched since: the end is known, and not durable.
    other.report(task_id, pb.ATTEMPT_PHASE_FAILED, exit_code=1)
    other.log(task_id, 9, b"not mine")
    assert [ack.stale for ack in other.acks()] == [True, True]
    other.register((task_id, 1))
    assert other.kept == []
    worker.wait_for_ack(own)
    assert not any(ack.stale for ack in worker.acks())
    assert cluster.task(task_id).status is TaskStatus.COMPLETED
    assert cluster.tasks.read_log(task_id, None, 0, 100)[1].data == b"all of it"


def test_invalid_report_changes_nothing(cluster: Cluster) -> None:
    worker = cluster.worker()
    task_id = cluster.placed(worker)
    with pytest.raises(InvalidMessage):
        worker.report(task_id, pb.ATTEMPT_PHASE_UNSPECIFIED)
    assert cluster.task(task_id).status is TaskStatus.PENDING


def test_worker_is_not_told_to_keep_foreign_attempts(cluster: Cluster) -> None:
    worker = cluster.worker()
    task_id = cluster.placed(worker)
    worker.register((task_id, 1), (task_id, 2), ("task-unknown", 1))
    assert [(kept.id.task_id, kept.id.attempt) for kept in worker.kept] == [(task_id, 1)]


def test_holding_attempts_that_were_never_its_own_is_a_violation(cluster: Cluster) -> None:
    worker, other = cluster.worker(), cluster.worker("rack-8")
    task_id = cluster.placed(worker)
    past = cluster.placed(worker)
    worker.run(past)
    worker.wait_for_ack(worker.report(past, pb.ATTEMPT_PHASE_COMPLETED, exit_code=0))
    worker.register((task_id, 1), (past, 1))
    other.register((task_id, 1), ("task-unknown", 1))
    wait_until(lambda: len(other.violations) == 2)
    assert sorted(other.violations) == sorted(
        [
            ("hold", f"{task_id}/1", "it is of worker rack-7"),
            ("hold", "task-unknown/1", "there is no such attempt"),
        ]
    )
    assert worker.violations == []


def test_attempt_with_a_pending_end_is_kept(cluster: Cluster) -> None:
    worker = cluster.worker()
    task_id = cluster.placed(worker)
    worker.run(task_id)
    worker.log(task_id, 0, b"all of it")
    worker.report(task_id, pb.ATTEMPT_PHASE_COMPLETED, exit_code=0)
    # Nothing has switched since: the end is known, and not durable.
    worker.register((task_id, 1))
    assert [(kept.id.task_id, kept.log_received_bytes) for kept in worker.kept] == [(task_id, 9)]
    worker.wait_for_ack(worker.report(task_id, pb.ATTEMPT_PHASE_COMPLETED, exit_code=0))
    assert not any(ack.stale for ack in worker.acks())
    worker.register((task_id, 1))
    assert worker.kept == []


# Logs


def test_log_chunks_may_repeat_and_gaps_are_not_acknowledged(cluster: Cluster) -> None:
    worker = cluster.worker()
    task_id = cluster.placed(worker)
    worker.log(task_id, 0, b"hello ")
    worker.log(task_id, 0, b"hello ")
    worker.log(task_id, 3, b"lo world")
    worker.log(task_id, 50, b"gap")
    wait_until(lambda: len(worker.acks()) == 3)
    assert [ack.log.received_bytes for ack in worker.acks()] == [6, 6, 11]
    assert cluster.tasks.read_log(task_id, 1, 0, 100)[1].data == b"hello world"
    worker.register((task_id, 1))
    assert [kept.log_received_bytes for kept in worker.kept] == [11]


# Workers that go away


def test_tasks_of_a_silent_worker_are_lost_and_retried_elsewhere(cluster: Cluster) -> None:
    silent = cluster.worker("rack-1", cores=2.0)
    retried, not_retried = cluster.placed(silent, max_retries=1), cluster.placed(silent)
    for task_id in (retried, not_retried):
        silent.run(task_id)
    other = cluster.worker("rack-2")
    cluster.pass_time(30.0, other)
    assert cluster.task(retried).status is TaskStatus.RUNNING
    cluster.pass_time(5.0, other)
    wait_until(lambda: cluster.task(not_retried).status is TaskStatus.FAILED)
    assert cluster.task(not_retried).outcome.reason == "worker_lost"
    assert {(task_id, number) for task_id, number, forget in silent.stops() if forget} == {
        (retried, 1),
        (not_retried, 1),
    }
    cluster.pass_time(1.0, other)
    cluster.tasks._registry.on_capacity_freed()
    wait_until(lambda: (retried, 2) in other.starts())
    silent.register((retried, 1), (not_retried, 1))
    assert silent.kept == []


def test_worker_that_does_not_know_its_attempts_yet_loses_none(cluster: Cluster) -> None:
    worker = cluster.worker()
    task_id = cluster.placed(worker)
    worker.run(task_id)
    worker.register(attempts_unknown=True)
    assert worker.kept == []
    cluster.pass_time(60.0, worker)
    assert cluster.task(task_id).status is TaskStatus.RUNNING
    worker.register((task_id, 1))
    assert [kept.id.task_id for kept in worker.kept] == [task_id]


def test_worker_that_sends_heartbeats_again_gets_tasks_again(cluster: Cluster) -> None:
    worker, other = cluster.worker(), cluster.worker("rack-8", cores=0.5)
    task_id = cluster.placed(worker)
    cluster.pass_time(40.0, other)
    assert worker.stops() == [(task_id, 1, True)]
    cluster.fleet.beat("rack-7", incarnation_id="first")
    assert cluster.fleet.manager.get_worker_telemetry("rack-7").allocation.refusal is None


def test_attempt_that_its_worker_lacks_is_lost_without_using_a_retry(cluster: Cluster) -> None:
    worker = cluster.worker()
    task_id = cluster.placed(worker)
    worker.register()
    wait_until(lambda: (task_id, 2) in worker.starts())
    assert [attempt.status for attempt in cluster.attempts(task_id)] == [AttemptStatus.LOST, AttemptStatus.ASSIGNED]
    assert cluster.task(task_id).retries_used == 0


def test_attempt_is_sent_when_the_worker_is_back(cluster: Cluster) -> None:
    worker = cluster.worker()
    task_id = cluster.submit()
    cluster.tasks._scheduler.run_round()
    worker.hang_up()
    wait_until(lambda: cluster.task(task_id).status is TaskStatus.PENDING)
    assert worker.starts() == []
    worker.register()
    assert worker.starts() == [(task_id, 1)]
    assert cluster.task(task_id).attempt == 1


def test_worker_that_left_has_time_to_come_back_for_its_containers(cluster: Cluster) -> None:
    worker = cluster.worker()
    task_id = cluster.placed(worker)
    worker.run(task_id)
    worker.hang_up()
    cluster.fleet.manager.unregister_worker("rack-7")
    cluster.pass_time(34.0)
    worker.register((task_id, 1))
    assert [kept.id.task_id for kept in worker.kept] == [task_id]
    cluster.pass_time(60.0, worker)
    assert cluster.task(task_id).status is TaskStatus.RUNNING
    worker.hang_up()
    cluster.fleet.manager.unregister_worker("rack-7")
    cluster.pass_time(36.0)
    wait_until(lambda: cluster.task(task_id).status is TaskStatus.FAILED)


def test_no_attempt_is_lost_while_most_of_the_fleet_is_away(cluster: Cluster) -> None:
    workers = [cluster.worker(f"rack-{number}", cores=1.0) for number in range(4)]
    tasks = [cluster.submit(max_retries=3) for _ in workers]
    wait_until(lambda: all(worker.starts() for worker in workers))
    for worker in workers:
        worker.run(worker.starts()[0][0])
    cluster.pass_time(60.0, workers[0])
    assert {cluster.task(task_id).status for task_id in tasks} == {TaskStatus.RUNNING}
    assert metric(cluster, "task_rescheduling_held") == 1
    for worker in workers[1:]:
        worker.register(*worker.starts())
    cluster.pass_time(1.0, *workers)
    assert metric(cluster, "task_rescheduling_held") == 0
    assert {cluster.task(task_id).status for task_id in tasks} == {TaskStatus.RUNNING}


# Drains


def test_drained_worker_keeps_its_tasks_and_gets_no_new_ones(cluster: Cluster) -> None:
    worker = cluster.worker()
    running = cluster.placed(worker)
    cluster.tasks.drain("rack-7", "new disks")
    assert worker.sent[-1].drain == pb.Drain(draining=True, reason="new disks")
    waiting = cluster.submit()
    assert cluster.tasks._scheduler.run_round() == 0
    assert "new disks" in str(cluster.tasks.queue_reason(cluster.task(waiting)))
    assert cluster.fleet.manager.get_worker_telemetry("rack-7").allocation.refusal == "it is drained: new disks"
    worker.register((running, 1))
    assert worker.sent[-1].drain.draining
    cluster.tasks.undrain("rack-7")
    wait_until(lambda: (waiting, 1) in worker.starts())


# A master that starts again


def test_restarted_master_loads_every_live_task(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as cluster:
        worker = cluster.worker(gpus=("GPU-a",))
        running = cluster.placed(worker, gpu_required=1)
        worker.run(running)
        worker.log(running, 0, b"before ")
        cluster.worker("rack-8", cores=0.5)
        cluster.tasks.drain("rack-8", "old disks")
        queued = cluster.submit(cpu_required=4.0)
        ended = cluster.submit()
        cluster.tasks.cancel(ended)
    with running_cluster(tmp_path) as cluster:
        assert metric(cluster, "tasks", status="running") == 1
        assert metric(cluster, "tasks", status="cancelled") == 1
        drain = cluster.tasks.drain_of("rack-8")
        assert drain is not None
        assert drain.reason == "old disks"
        worker = cluster.worker()
        # It holds nothing of the attempt, so the task is tried again: but it has no retry left.
        wait_until(lambda: cluster.task(running).status is TaskStatus.FAILED)
        wait_until(lambda: (queued, 1) in worker.starts())
        assert {task.task_id for task in cluster.tasks.find(TaskQuery()).tasks} == {running, queued, ended}


def test_worker_keeps_its_attempts_when_the_master_restarts(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as cluster:
        worker = cluster.worker(cores=1.0)
        task_id = cluster.placed(worker)
        worker.run(task_id)
        worker.log(task_id, 0, b"before ")
        wait_until(lambda: any(ack.HasField("log") for ack in worker.acks()))
    with running_cluster(tmp_path) as cluster:
        worker = FakeWorker(cluster, "rack-7", 1.0, ())
        worker.register((task_id, 1))
        assert [kept.log_received_bytes for kept in worker.kept] == [7]
        assert worker.starts() == []
        waiting = cluster.submit()
        assert cluster.tasks._scheduler.run_round() == 0, "the first one still holds the core"
        worker.log(task_id, 7, b"after")
        worker.wait_for_ack(worker.report(task_id, pb.ATTEMPT_PHASE_COMPLETED, exit_code=0))
        assert cluster.tasks.read_log(task_id, None, 0, 100)[1].data == b"before after"
        wait_until(lambda: (waiting, 1) in worker.starts())


def test_restarted_master_that_no_worker_reaches_gives_nothing_up(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as cluster:
        workers = [cluster.worker(f"rack-{number}") for number in range(3)]
        tasks = [cluster.submit(cpu_required=4.0) for _ in workers]
        wait_until(lambda: all(worker.starts() for worker in workers))
        held = {worker.worker_id: worker.starts()[0] for worker in workers}
        for worker in workers:
            worker.run(held[worker.worker_id][0])
    with running_cluster(tmp_path) as cluster:
        assert metric(cluster, "task_rescheduling_held") == 1
        cluster.pass_time(300.0)
        assert {cluster.task(task_id).status for task_id in tasks} == {TaskStatus.RUNNING}
        for worker_id, attempt in held.items():
            FakeWorker(cluster, worker_id, 4.0, ()).register(attempt)
            cluster.fleet.beat(worker_id, incarnation_id="first")
        assert metric(cluster, "task_rescheduling_held") == 0
        cluster.pass_time(20.0)
        assert {cluster.task(task_id).status for task_id in tasks} == {TaskStatus.RUNNING}


def test_worker_that_is_not_back_after_a_restart_of_the_master_is_lost(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as cluster:
        worker = cluster.worker()
        task_id = cluster.placed(worker)
        worker.run(task_id)
    with running_cluster(tmp_path) as cluster:
        cluster.pass_time(34.0)
        assert cluster.task(task_id).status is TaskStatus.RUNNING
        cluster.pass_time(2.0)
        wait_until(lambda: cluster.task(task_id).status is TaskStatus.FAILED)


# The policy for tasks


def test_defaults_of_the_policy_are_in_the_task() -> None:
    spec = task_request("busybox", env={"A": "b"}, max_retries=3)
    assert apply_policy(spec, TaskPolicy()) == spec
    policy = TaskPolicy(read_only_root="forced", user="1000", networks=("none",))
    assert apply_policy(spec, policy) == spec.model_copy(update={"read_only": True, "user": "1000", "network": "none"})
    asked = spec.model_copy(update={"read_only": True, "user": "1000", "network": "none"})
    assert apply_policy(asked, policy) == asked


def test_task_refused_by_the_policy_lists_every_broken_rule() -> None:
    spec = task_request("evil/app", cpu_required=3.0, memory_required=2048, user="0")
    policy = TaskPolicy(images=("ghcr.io/**",), max_cpu_cores=2.0, max_memory_mib=1024, require_non_root=True)
    with pytest.raises(TaskRefused) as refused:
        apply_policy(spec, policy)
    assert [(refusal.rule, refusal.field) for refusal in refused.value.refusals] == [
        ("images", "docker_image"),
        ("max_cpu_cores", "cpu_required"),
        ("max_memory_mib", "memory_required"),
        ("require_non_root", "user"),
    ]
    assert "docker_image is docker.io/evil/app:latest, which is not allowed; allowed are: ghcr.io/**" in str(
        refused.value
    )


# Health


def test_service_is_unhealthy_before_its_start_and_when_a_greenlet_has_ended(cluster: Cluster) -> None:
    assert cluster.tasks.health_error() is None
    fleet = cluster.fleet
    not_started = TaskService(cluster.store, fleet.manager, Instruments(), fleet.clock.port)
    assert not_started.health_error() == "not started"
    cluster.tasks._greenlets[1].kill()
    assert cluster.tasks.health_error() == "task-ownership does not run"
