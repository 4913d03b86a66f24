"""master.tasks.quotas, and what the service does by it"""

from pathlib import Path

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.master.config import QueueLimits
from fleetpulse.master.errors import IdempotencyConflict, QuotaExceeded
from fleetpulse.master.tasks.quotas import QueueQuotas, Usage, request_bytes
from fleetpulse.master.tasks.records import Idempotency, TaskStatus
from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.master.fleet import wait_until
from tests.master.requests import task_request
from tests.master.tasks.cluster import SMALL, Cluster, running_cluster

TWO = QueueLimits(tasks=2, size_bytes=10**9, token_tasks=2, token_bytes=10**9)
MANY = 10**9


def refused(cluster: Cluster, submitter: str | None = None) -> str:
    with pytest.raises(QuotaExceeded) as caught:
        cluster.tasks.submit(SMALL, None, submitter)
    return caught.value.limit


def test_size_counts_every_text_of_a_request_in_utf8() -> None:
    small = request_bytes(task_request("busybox"))
    assert request_bytes(task_request("busybox", command=["echo", "h\u00ef"])) == small + 4 + 3
    assert request_bytes(task_request("busybox", env={"A": "12345"})) == small + 6
    assert request_bytes(task_request("busybox", labels={"a": "b"}, constraints={"zone": ["x", "yz"]})) == small + 9


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (QueueLimits(1, MANY, MANY, MANY), "queued_tasks"),
        (QueueLimits(MANY, 1000, MANY, MANY), "queued_bytes"),
        (QueueLimits(MANY, MANY, 1, MANY), "token_queued_tasks"),
        (QueueLimits(MANY, MANY, MANY, 1000), "token_queued_bytes"),
    ],
)
def test_each_limit_refuses_by_its_name_and_counts_nothing_then(limits: QueueLimits, name: str) -> None:
    quotas = QueueQuotas(limits)
    quotas.take("ci", SMALL)
    before = quotas.usage
    with pytest.raises(QuotaExceeded, match=name) as caught:
        quotas.take("ci", SMALL)
    assert caught.value.limit == name
    assert quotas.usage == quotas.used_by("ci") == before
    quotas.release("ci", SMALL)
    assert quotas.usage == Usage()
    quotas.take("ci", SMALL)


def test_one_submitter_leaves_room_for_another() -> None:
    quotas = QueueQuotas(QueueLimits(tasks=3, size_bytes=MANY, token_tasks=2, token_bytes=MANY))
    quotas.take("greedy", SMALL)
    quotas.take("greedy", SMALL)
    with pytest.raises(QuotaExceeded, match="greedy"):
        quotas.take("greedy", SMALL)
    quotas.take("modest", SMALL)
    with pytest.raises(QuotaExceeded, match="the limit queued_tasks is reached: 3 tasks may be queued"):
        quotas.take("third", SMALL)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["a", "b", None]))))
def test_usage_is_the_sum_of_what_is_held_and_never_over_the_limits(steps: list[tuple[bool, str | None]]) -> None:
    quotas = QueueQuotas(QueueLimits(tasks=4, size_bytes=MANY, token_tasks=3, token_bytes=MANY))
    held: list[str | None] = []
    for is_submit, submitter in steps:
        if not is_submit and submitter in held:
            held.remove(submitter)
            quotas.release(submitter, SMALL)
        elif is_submit:
            try:
                quotas.take(submitter, SMALL)
                held.append(submitter)
            except QuotaExceeded:
                assert len(held) == 4 or held.count(submitter) == 3
        assert quotas.usage.tasks == len(held) <= 4
        assert all(quotas.used_by(one).tasks == held.count(one) <= 3 for one in ("a", "b", None))


def test_queue_that_is_full_takes_a_task_again_when_one_is_placed_or_cancelled(tmp_path: Path) -> None:
    with running_cluster(tmp_path, queue_limits=TWO) as cluster:
        first, _ = cluster.submit(), cluster.submit()
        assert refused(cluster) == "token_queued_tasks"
        assert refused(cluster, "ci") == "queued_tasks"
        cluster.tasks.cancel(first)
        cluster.submit()
        assert refused(cluster) == "token_queued_tasks"
        assert cluster.fleet.metric("task_queued_bytes") == 2 * request_bytes(SMALL)
        worker = cluster.worker()
        wait_until(lambda: len(worker.starts()) == 2)
        assert cluster.fleet.metric("task_queued_bytes") == 0
        cluster.submit()


def test_restart_counts_what_was_queued_and_of_whom(tmp_path: Path) -> None:
    with running_cluster(tmp_path, queue_limits=TWO) as cluster:
        cluster.tasks.submit(SMALL, None, "ci")
        cluster.tasks.submit(SMALL, None, "ci")
    limits = TWO._replace(tasks=3)
    with running_cluster(tmp_path, queue_limits=limits) as cluster:
        assert refused(cluster, "ci") == "token_queued_tasks"
        cluster.tasks.submit(SMALL, None, "other")
        assert refused(cluster, "third") == "queued_tasks"


def test_retry_is_queued_whatever_the_quota_says(tmp_path: Path) -> None:
    with running_cluster(tmp_path, queue_limits=TWO) as cluster:
        worker = cluster.worker(cores=1.0)
        task_id = cluster.placed(worker, max_retries=1)
        cluster.submit()
        cluster.submit()
        worker.run(task_id)
        number = worker.report(task_id, pb.ATTEMPT_PHASE_FAILED, exit_code=1)
        worker.wait_for_ack(number)
        assert cluster.fleet.metric("tasks", status="failed") == 0
        assert refused(cluster) == "token_queued_tasks"


def test_requests_that_come_at_once_cannot_pass_together(tmp_path: Path) -> None:
    with running_cluster(tmp_path, queue_limits=TWO) as cluster:
        submits = [gevent.spawn(cluster.submit) for _ in range(8)]
        gevent.joinall(submits, timeout=30)
        assert sum(submit.successful() for submit in submits) == 2
        assert all(submit.successful() or isinstance(submit.exception, QuotaExceeded) for submit in submits)
        assert cluster.store.count_by_status()[TaskStatus.QUEUED] == 2


def test_repeated_request_is_answered_by_its_task_though_the_queue_is_full(tmp_path: Path) -> None:
    with running_cluster(tmp_path, queue_limits=TWO) as cluster:
        key = Idempotency("once", SMALL.digest())
        task, _ = cluster.tasks.submit(SMALL, key)
        again, is_new = cluster.tasks.submit(SMALL, key)
        assert (again.task_id, is_new) == (task.task_id, False)
        cluster.submit()
        again, is_new = cluster.tasks.submit(SMALL, key)
        assert (again.task_id, is_new) == (task.task_id, False)
        with pytest.raises(IdempotencyConflict):
            cluster.tasks.submit(task_request("other"), Idempotency("once", "other"))
        with pytest.raises(QuotaExceeded):
            cluster.tasks.submit(SMALL, Idempotency("new", SMALL.digest()))
