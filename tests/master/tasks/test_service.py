"""master.tasks.service, with the ledger, the placer and the desk: what becomes of a task, with a real store"""

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
from tests.master.requests import a_request
from tests.master.tasks.party import GIB, SMALL, Desk, Party, new_party, running_party


@pytest.fixture
def party() -> Iterator[Party]:
    with new_party() as party:
        yield party


def metric(party: Party, name: str, **labels: str) -> float | None:
    return party.fleet.metric(name, **labels)


# From the submit to the end


def test_a_task_from_the_submit_to_its_exit_code(party: Party) -> None:
    desk = party.worker()
    task_id = party.placed(desk, command=("echo", "hi"), env={"A": "b"})
    (start,) = [message.start_task for message in desk.sent if message.HasField("start_task")]
    assert (start.docker_image, list(start.command), dict(start.env)) == ("busybox:1", ["echo", "hi"], {"A": "b"})
    assert party.task(task_id).status is TaskStatus.PENDING
    assert metric(party, "tasks", status="pending") == 1

    desk.report(task_id, pb.ATTEMPT_PHASE_PREPARING, message="pulling")
    desk.run(task_id)
    assert party.task(task_id).status is TaskStatus.RUNNING
    desk.log(task_id, 0, b"hi\n")
    number = desk.report(task_id, pb.ATTEMPT_PHASE_COMPLETED, exit_code=0, oom_killed=False)
    desk.wait_for_ack(number)

    task = party.task(task_id)
    assert (task.status, task.outcome.exit_code, task.outcome.oom_killed) == (TaskStatus.COMPLETED, 0, False)
    assert [attempt.status for attempt in party.attempts(task_id)] == [AttemptStatus.COMPLETED]
    assert party.tasks.read_log(task_id, None, 0, 100)[1].data == b"hi\n"
    kinds = [event.kind for event in party.store.details(task_id).events]
    assert kinds == ["submitted", "assigned", "preparing", "running", "completed"]
    assert not any(ack.stale for ack in desk.acks())
    assert metric(party, "tasks", status="completed") == 1
    assert metric(party, "tasks", status="running") == 0
    assert metric(party, "tasks_finished_total", status="completed") == 1
    assert metric(party, "task_queue_wait_seconds_count") == 1
    assert metric(party, "task_run_seconds_count") == 1


def test_what_a_task_takes_shows_on_its_worker_until_it_ends(party: Party) -> None:
    desk = party.worker(gpus=("GPU-a", "GPU-b"))
    task_id = party.placed(desk, cpu_required=1.5, memory_required=1024, gpu_required=1)
    allocation = party.fleet.manager.get_worker_telemetry("rack-7").allocation
    assert (allocation.cpu_cores, allocation.memory_bytes, allocation.gpu_uuids) == (1.5, GIB, ("GPU-a",))
    assert allocation.refusal is None
    desk.report(task_id, pb.ATTEMPT_PHASE_FAILED, exit_code=1, reason="exit_code")
    assert party.fleet.manager.get_worker_telemetry("rack-7").allocation.tasks == 0


def test_a_task_that_finds_no_place_gets_one_when_there_is_room(party: Party) -> None:
    desk = party.worker(cores=1.0)
    first = party.placed(desk)
    second = party.submit()
    reason = party.tasks.queue_reason(party.task(second))
    assert reason is not None
    assert "CPU" in reason
    desk.report(first, pb.ATTEMPT_PHASE_COMPLETED, exit_code=0)
    wait_until(lambda: (second, 1) in desk.starts())
    assert party.tasks.queue_reason(party.task(second)) is None


def test_a_failed_attempt_is_tried_again_after_a_pause_while_retries_are_left(party: Party) -> None:
    desk = party.worker()
    task_id = party.placed(desk, max_retries=1)
    number = desk.report(task_id, pb.ATTEMPT_PHASE_FAILED, exit_code=1, reason="exit_code")
    desk.wait_for_ack(number)
    task = party.task(task_id)
    assert (task.status, task.not_before) == (TaskStatus.QUEUED, party.fleet.clock.wall + 1.0)
    assert "waits 1 s after a failed attempt" in str(party.tasks.queue_reason(task))
    party.pass_time(1.0, desk)
    party.tasks._registry.on_capacity_freed()
    wait_until(lambda: (task_id, 2) in desk.starts())
    number = desk.report(task_id, pb.ATTEMPT_PHASE_FAILED, attempt=2, exit_code=3, reason="exit_code")
    desk.wait_for_ack(number)
    assert (party.task(task_id).status, party.task(task_id).outcome.exit_code) == (TaskStatus.FAILED, 3)


# Submit and look


def test_one_key_is_one_task(party: Party) -> None:
    first, created = party.tasks.submit(SMALL, Idempotency("key", "digest"))
    again, created_again = party.tasks.submit(SMALL, Idempotency("key", "digest"))
    assert (created, created_again, again.task_id) == (True, False, first.task_id)
    assert metric(party, "tasks", status="queued") == 1


def test_what_is_unknown(party: Party) -> None:
    with pytest.raises(UnknownTask):
        party.tasks.details("task-9")
    with pytest.raises(UnknownTask):
        party.tasks.cancel("task-9")
    with pytest.raises(UnknownTask):
        party.tasks.read_log("task-9", None, 0, 10)
    with pytest.raises(UnknownWorker):
        party.tasks.worker_attempts("rack-9")
    with pytest.raises(UnknownWorker):
        party.tasks.drain("rack-9", "")


def test_a_watch_hears_of_every_step_once_it_is_durable(party: Party) -> None:
    desk = party.worker()
    task_id = party.submit()
    with party.tasks.watch(task_id) as watch:
        assert watch.wait(5.0)
        wait_until(lambda: bool(desk.starts()))
        desk.run(task_id)
        assert watch.wait(5.0)
        desk.log(task_id, 0, b"x")
        assert watch.wait(5.0)
        assert party.tasks.read_log(task_id, 1, 0, 10)[1].data == b"x"
        assert not watch.wait(0.01)
    assert len(party.tasks._registry.watchers) == 0


# Cancel


def test_a_queued_task_is_cancelled_at_once(party: Party) -> None:
    task_id = party.submit()
    assert party.tasks.cancel(task_id).status is TaskStatus.CANCELLED
    assert party.task(task_id).status is TaskStatus.CANCELLED
    with pytest.raises(TaskAlreadyFinished):
        party.tasks.cancel(task_id)
    party.worker()
    assert party.tasks._scheduler.run_round() == 0


def test_a_running_task_is_cancelled_when_its_worker_says_so(party: Party) -> None:
    desk = party.worker()
    task_id = party.placed(desk)
    desk.run(task_id)
    assert party.tasks.cancel(task_id).status is TaskStatus.RUNNING
    assert party.tasks.cancel(task_id).cancel_requested_at is not None
    assert desk.stops() == [(task_id, 1, False)]
    desk.wait_for_ack(desk.report(task_id, pb.ATTEMPT_PHASE_STOPPED, exit_code=143, reason="stopped"))
    task = party.task(task_id)
    assert (task.status, task.outcome.reason, task.outcome.exit_code) == (TaskStatus.CANCELLED, "cancelled", 143)


def test_a_cancelled_task_that_had_ended_well_is_completed(party: Party) -> None:
    desk = party.worker()
    task_id = party.placed(desk)
    party.tasks.cancel(task_id)
    desk.wait_for_ack(desk.report(task_id, pb.ATTEMPT_PHASE_COMPLETED, exit_code=0))
    assert party.task(task_id).status is TaskStatus.COMPLETED


def test_a_worker_that_was_away_is_told_again_to_stop(party: Party) -> None:
    desk = party.worker()
    task_id = party.placed(desk)
    desk.hang_up()
    party.tasks.cancel(task_id)
    desk.register((task_id, 1))
    assert [kept.id.task_id for kept in desk.kept] == [task_id]
    assert desk.stops() == [(task_id, 1, False)]


# Fencing


def stale(desk: Desk, number: int) -> bool:
    desk.wait_for_ack(number)
    return [ack.stale for ack in desk.acks() if ack.update_number == number] == [True]


def test_reports_about_the_past_are_refused_and_counted(party: Party) -> None:
    desk, other = party.worker(), party.worker("rack-8", cores=0.5)
    task_id = party.placed(desk)
    for who, attempt in ((other, 1), (desk, 2)):
        assert stale(who, who.report(task_id, pb.ATTEMPT_PHASE_COMPLETED, attempt, exit_code=0))
    other.log(task_id, 0, b"not mine")
    assert other.acks()[-1].stale
    assert metric(party, "task_reports_stale_total") == 3
    assert party.task(task_id).status is TaskStatus.PENDING
    desk.wait_for_ack(desk.report(task_id, pb.ATTEMPT_PHASE_COMPLETED, exit_code=0))
    assert stale(desk, desk.report(task_id, pb.ATTEMPT_PHASE_FAILED, exit_code=1))
    assert party.task(task_id).status is TaskStatus.COMPLETED
    other.report("task-none", pb.ATTEMPT_PHASE_COMPLETED, exit_code=0)
    # What is asked later is answered later, so the worker's own past is known to have been let pass.
    wait_until(lambda: len(other.violations) == 3)
    assert other.violations == [
        ("report", f"{task_id}/1", "it is of worker rack-7"),
        ("log", f"{task_id}/1", "it is of worker rack-7"),
        ("report", "task-none/1", "there is no such attempt"),
    ]
    assert desk.violations == [("report", f"{task_id}/2", "there is no such attempt")]
    assert metric(party, "task_reports_foreign_total") == 4
    assert metric(party, "task_reports_stale_total") == 5


def test_an_end_that_is_not_durable_yet_is_its_own_workers_affair(party: Party) -> None:
    desk, other = party.worker(), party.worker("rack-8", cores=0.5)
    task_id = party.placed(desk)
    desk.run(task_id)
    desk.log(task_id, 0, b"all of it")
    own = desk.report(task_id, pb.ATTEMPT_PHASE_COMPLETED, exit_code=0)
    # Nothing has switched since: the end is known, and not durable.
    other.report(task_id, pb.ATTEMPT_PHASE_FAILED, exit_code=1)
    other.log(task_id, 9, b"not mine")
    assert [ack.stale for ack in other.acks()] == [True, True]
    other.register((task_id, 1))
    assert other.kept == []
    desk.wait_for_ack(own)
    assert not any(ack.stale for ack in desk.acks())
    assert party.task(task_id).status is TaskStatus.COMPLETED
    assert party.tasks.read_log(task_id, None, 0, 100)[1].data == b"all of it"


def test_a_report_that_breaks_a_rule_changes_nothing(party: Party) -> None:
    desk = party.worker()
    task_id = party.placed(desk)
    with pytest.raises(InvalidMessage):
        desk.report(task_id, pb.ATTEMPT_PHASE_UNSPECIFIED)
    assert party.task(task_id).status is TaskStatus.PENDING


def test_a_worker_ends_what_is_not_its_own(party: Party) -> None:
    desk = party.worker()
    task_id = party.placed(desk)
    desk.register((task_id, 1), (task_id, 2), ("task-unknown", 1))
    assert [(kept.id.task_id, kept.id.attempt) for kept in desk.kept] == [(task_id, 1)]


def test_a_worker_that_holds_what_was_never_its_own_is_accused_of_it(party: Party) -> None:
    desk, other = party.worker(), party.worker("rack-8")
    task_id = party.placed(desk)
    past = party.placed(desk)
    desk.run(past)
    desk.wait_for_ack(desk.report(past, pb.ATTEMPT_PHASE_COMPLETED, exit_code=0))
    desk.register((task_id, 1), (past, 1))
    other.register((task_id, 1), ("task-unknown", 1))
    wait_until(lambda: len(other.violations) == 2)
    assert sorted(other.violations) == sorted(
        [
            ("hold", f"{task_id}/1", "it is of worker rack-7"),
            ("hold", "task-unknown/1", "there is no such attempt"),
        ]
    )
    assert desk.violations == []


def test_an_end_that_is_not_durable_yet_is_not_forgotten(party: Party) -> None:
    desk = party.worker()
    task_id = party.placed(desk)
    desk.run(task_id)
    desk.log(task_id, 0, b"all of it")
    desk.report(task_id, pb.ATTEMPT_PHASE_COMPLETED, exit_code=0)
    # Nothing has switched since: the end is known, and not durable.
    desk.register((task_id, 1))
    assert [(kept.id.task_id, kept.log_received_bytes) for kept in desk.kept] == [(task_id, 9)]
    desk.wait_for_ack(desk.report(task_id, pb.ATTEMPT_PHASE_COMPLETED, exit_code=0))
    assert not any(ack.stale for ack in desk.acks())
    desk.register((task_id, 1))
    assert desk.kept == []


# Logs


def test_a_log_in_pieces_with_repetitions_and_a_gap(party: Party) -> None:
    desk = party.worker()
    task_id = party.placed(desk)
    desk.log(task_id, 0, b"hello ")
    desk.log(task_id, 0, b"hello ")
    desk.log(task_id, 3, b"lo world")
    desk.log(task_id, 50, b"gap")
    wait_until(lambda: len(desk.acks()) == 3)
    assert [ack.log.received_bytes for ack in desk.acks()] == [6, 6, 11]
    assert party.tasks.read_log(task_id, 1, 0, 100)[1].data == b"hello world"
    desk.register((task_id, 1))
    assert [kept.log_received_bytes for kept in desk.kept] == [11]


# Workers that go away


def test_the_tasks_of_a_worker_that_fell_silent_are_lost_and_retried_elsewhere(party: Party) -> None:
    silent = party.worker("rack-1", cores=2.0)
    retried, not_retried = party.placed(silent, max_retries=1), party.placed(silent)
    for task_id in (retried, not_retried):
        silent.run(task_id)
    other = party.worker("rack-2")
    party.pass_time(30.0, other)
    assert party.task(retried).status is TaskStatus.RUNNING
    party.pass_time(5.0, other)
    wait_until(lambda: party.task(not_retried).status is TaskStatus.FAILED)
    assert party.task(not_retried).outcome.reason == "worker_lost"
    assert {(task_id, number) for task_id, number, forget in silent.stops() if forget} == {
        (retried, 1),
        (not_retried, 1),
    }
    party.pass_time(1.0, other)
    party.tasks._registry.on_capacity_freed()
    wait_until(lambda: (retried, 2) in other.starts())
    silent.register((retried, 1), (not_retried, 1))
    assert silent.kept == []


def test_a_worker_that_does_not_know_yet_what_it_holds_loses_nothing(party: Party) -> None:
    desk = party.worker()
    task_id = party.placed(desk)
    desk.run(task_id)
    desk.register(attempts_unknown=True)
    assert desk.kept == []
    party.pass_time(60.0, desk)
    assert party.task(task_id).status is TaskStatus.RUNNING
    desk.register((task_id, 1))
    assert [kept.id.task_id for kept in desk.kept] == [task_id]


def test_a_worker_that_beats_again_on_its_stream_may_get_tasks_again(party: Party) -> None:
    desk, other = party.worker(), party.worker("rack-8", cores=0.5)
    task_id = party.placed(desk)
    party.pass_time(40.0, other)
    assert desk.stops() == [(task_id, 1, True)]
    party.fleet.beat("rack-7", incarnation_id="first")
    assert party.fleet.manager.get_worker_telemetry("rack-7").allocation.refusal is None


def test_an_attempt_that_its_worker_does_not_have_is_lost_without_a_retry(party: Party) -> None:
    desk = party.worker()
    task_id = party.placed(desk)
    desk.register()
    wait_until(lambda: (task_id, 2) in desk.starts())
    assert [attempt.status for attempt in party.attempts(task_id)] == [AttemptStatus.LOST, AttemptStatus.ASSIGNED]
    assert party.task(task_id).retries_used == 0


def test_an_attempt_that_could_not_be_sent_is_sent_when_the_worker_is_back(party: Party) -> None:
    desk = party.worker()
    task_id = party.submit()
    party.tasks._scheduler.run_round()
    desk.hang_up()
    wait_until(lambda: party.task(task_id).status is TaskStatus.PENDING)
    assert desk.starts() == []
    desk.register()
    assert desk.starts() == [(task_id, 1)]
    assert party.task(task_id).attempt == 1


def test_a_worker_that_says_goodbye_has_time_to_come_back_for_its_containers(party: Party) -> None:
    desk = party.worker()
    task_id = party.placed(desk)
    desk.run(task_id)
    desk.hang_up()
    party.fleet.manager.unregister_worker("rack-7")
    party.pass_time(34.0)
    desk.register((task_id, 1))
    assert [kept.id.task_id for kept in desk.kept] == [task_id]
    party.pass_time(60.0, desk)
    assert party.task(task_id).status is TaskStatus.RUNNING
    desk.hang_up()
    party.fleet.manager.unregister_worker("rack-7")
    party.pass_time(36.0)
    wait_until(lambda: party.task(task_id).status is TaskStatus.FAILED)


def test_nothing_is_given_up_while_most_of_the_fleet_is_gone(party: Party) -> None:
    workers = [party.worker(f"rack-{number}", cores=1.0) for number in range(4)]
    tasks = [party.submit(max_retries=3) for _ in workers]
    wait_until(lambda: all(desk.starts() for desk in workers))
    for desk in workers:
        desk.run(desk.starts()[0][0])
    party.pass_time(60.0, workers[0])
    assert {party.task(task_id).status for task_id in tasks} == {TaskStatus.RUNNING}
    assert metric(party, "task_rescheduling_held") == 1
    for desk in workers[1:]:
        desk.register(*desk.starts())
    party.pass_time(1.0, *workers)
    assert metric(party, "task_rescheduling_held") == 0
    assert {party.task(task_id).status for task_id in tasks} == {TaskStatus.RUNNING}


# Drains


def test_a_drained_worker_runs_on_and_gets_nothing_new(party: Party) -> None:
    desk = party.worker()
    running = party.placed(desk)
    party.tasks.drain("rack-7", "new disks")
    assert desk.sent[-1].drain == pb.Drain(draining=True, reason="new disks")
    waiting = party.submit()
    assert party.tasks._scheduler.run_round() == 0
    assert "new disks" in str(party.tasks.queue_reason(party.task(waiting)))
    assert party.fleet.manager.get_worker_telemetry("rack-7").allocation.refusal == "it is drained: new disks"
    desk.register((running, 1))
    assert desk.sent[-1].drain.draining
    party.tasks.undrain("rack-7")
    wait_until(lambda: (waiting, 1) in desk.starts())


# A master that starts again


def test_a_master_that_starts_again_finds_everything(tmp_path: Path) -> None:
    with running_party(tmp_path) as party:
        desk = party.worker(gpus=("GPU-a",))
        running = party.placed(desk, gpu_required=1)
        desk.run(running)
        desk.log(running, 0, b"before ")
        party.worker("rack-8", cores=0.5)
        party.tasks.drain("rack-8", "old disks")
        queued = party.submit(cpu_required=4.0)
        ended = party.submit()
        party.tasks.cancel(ended)
    with running_party(tmp_path) as party:
        assert metric(party, "tasks", status="running") == 1
        assert metric(party, "tasks", status="cancelled") == 1
        drain = party.tasks.drain_of("rack-8")
        assert drain is not None
        assert drain.reason == "old disks"
        desk = party.worker()
        # It holds nothing of the attempt, so the task is tried again: but it has no retry left.
        wait_until(lambda: party.task(running).status is TaskStatus.FAILED)
        wait_until(lambda: (queued, 1) in desk.starts())
        assert {task.task_id for task in party.tasks.find(TaskQuery()).tasks} == {running, queued, ended}


def test_a_worker_goes_on_under_a_master_that_starts_again(tmp_path: Path) -> None:
    with running_party(tmp_path) as party:
        desk = party.worker(cores=1.0)
        task_id = party.placed(desk)
        desk.run(task_id)
        desk.log(task_id, 0, b"before ")
        wait_until(lambda: any(ack.HasField("log") for ack in desk.acks()))
    with running_party(tmp_path) as party:
        desk = Desk(party, "rack-7", 1.0, ())
        desk.register((task_id, 1))
        assert [kept.log_received_bytes for kept in desk.kept] == [7]
        assert desk.starts() == []
        waiting = party.submit()
        assert party.tasks._scheduler.run_round() == 0, "the first one still holds the core"
        desk.log(task_id, 7, b"after")
        desk.wait_for_ack(desk.report(task_id, pb.ATTEMPT_PHASE_COMPLETED, exit_code=0))
        assert party.tasks.read_log(task_id, None, 0, 100)[1].data == b"before after"
        wait_until(lambda: (waiting, 1) in desk.starts())


def test_a_worker_that_does_not_come_back_after_the_master_did_is_lost(tmp_path: Path) -> None:
    with running_party(tmp_path) as party:
        desk = party.worker()
        task_id = party.placed(desk)
        desk.run(task_id)
    with running_party(tmp_path) as party:
        party.pass_time(34.0)
        assert party.task(task_id).status is TaskStatus.RUNNING
        party.pass_time(2.0)
        wait_until(lambda: party.task(task_id).status is TaskStatus.FAILED)


# The policy for tasks


def test_what_the_policy_decides_is_in_the_task() -> None:
    spec = a_request("busybox", env={"A": "b"}, max_retries=3)
    assert apply_policy(spec, TaskPolicy()) == spec
    policy = TaskPolicy(read_only_root="forced", user="1000", networks=("none",))
    assert apply_policy(spec, policy) == spec.model_copy(update={"read_only": True, "user": "1000", "network": "none"})
    asked = spec.model_copy(update={"read_only": True, "user": "1000", "network": "none"})
    assert apply_policy(asked, policy) == asked


def test_every_rule_that_is_broken_is_told() -> None:
    spec = a_request("evil/app", cpu_required=3.0, memory_required=2048, user="0")
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


def test_service_is_unhealthy_before_its_start_and_when_a_greenlet_has_ended(party: Party) -> None:
    assert party.tasks.health_error() is None
    fleet = party.fleet
    not_started = TaskService(party.store, fleet.manager, Instruments(), fleet.clock.port)
    assert not_started.health_error() == "not started"
    party.tasks._greenlets[1].kill()
    assert party.tasks.health_error() == "task-ownership does not run"
