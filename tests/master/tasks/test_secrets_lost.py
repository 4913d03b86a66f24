"""A master that comes back without the key of what it had sealed."""

from pathlib import Path

from fleetpulse.master.store.encryption import Encryptor, new_key
from fleetpulse.master.tasks.records import AttemptStatus, TaskStatus
from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.master.fleet import wait_until
from tests.master.tasks.cluster import Cluster, FakeWorker, running_cluster

OTHER = Encryptor([new_key()])
ENV = {"TOKEN": "hunter2"}


def ended(cluster: Cluster, task_id: str) -> None:
    wait_until(lambda: cluster.task(task_id).status.is_terminal)


def test_queued_task_fails_without_its_secrets_and_others_go_on(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as cluster:
        lost = cluster.submit(env=ENV)
        open_to_all = cluster.submit()
    with running_cluster(tmp_path, encryptor=OTHER) as cluster:
        ended(cluster, lost)
        task = cluster.task(lost)
        assert (task.status, task.outcome.reason) == (TaskStatus.FAILED, "secrets_lost")
        assert "the key that sealed them" in str(task.outcome.error)
        assert [event.kind for event in cluster.store.details(lost).events] == ["submitted", "failed"]
        worker = cluster.worker()
        wait_until(lambda: (open_to_all, 1) in worker.starts())
        assert (lost, 1) not in worker.starts()
        fresh = cluster.submit(env=ENV)
        wait_until(lambda: (fresh, 1) in worker.starts())


def test_running_task_goes_on_without_its_secrets_and_is_not_retried(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as cluster:
        worker = cluster.worker()
        good, bad = (cluster.placed(worker, env=ENV, max_retries=3) for _ in range(2))
        worker.run(good)
        worker.run(bad)
    with running_cluster(tmp_path, encryptor=OTHER) as cluster:
        worker = FakeWorker(cluster, "rack-7", 4.0, ())
        worker.register((good, 1), (bad, 1))
        assert {kept.id.task_id for kept in worker.kept} == {good, bad}
        worker.report(good, pb.ATTEMPT_PHASE_COMPLETED, exit_code=0)
        worker.report(bad, pb.ATTEMPT_PHASE_FAILED, exit_code=3, reason="exit_code")
        ended(cluster, good)
        ended(cluster, bad)
        assert cluster.task(good).status is TaskStatus.COMPLETED
        assert (cluster.task(bad).status, cluster.task(bad).outcome.reason) == (TaskStatus.FAILED, "secrets_lost")
        assert [attempt.status for attempt in cluster.attempts(bad)] == [AttemptStatus.FAILED]
        assert cluster.attempts(bad)[0].outcome.reason == "exit_code"


def test_task_runs_when_the_key_is_back(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as cluster:
        task_id = cluster.submit(env=ENV)
    with running_cluster(tmp_path) as cluster:
        worker = cluster.worker()
        wait_until(lambda: (task_id, 1) in worker.starts())
        (start,) = [message.start_task for message in worker.sent if message.HasField("start_task")]
        assert dict(start.env) == ENV
