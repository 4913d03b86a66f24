"""master.tasks.scheduler, with placement policies that a test writes"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import pytest

from fleetpulse.master.tasks.placement import Offer, Placement, Plan, Policy, QueuedTask, best_fit
from fleetpulse.master.tasks.scheduler import STUCK_AFTER_SECONDS
from tests.master.fleet import settle, wait_until
from tests.master.tasks.cluster import SMALL, Cluster, running_cluster

Decide = Callable[[QueuedTask], Placement]


@contextmanager
def cluster_with(policy: Policy, folder: Path) -> Iterator[Cluster]:
    with running_cluster(folder, policy=policy) as cluster:
        yield cluster


class FixedPolicy:
    """A policy that places every task with the function of a test, and counts its rounds."""

    def __init__(self, decide: Decide) -> None:
        self.decide = decide
        self.rounds = 0

    def __call__(self, offers: Sequence[Offer], waiting: Sequence[QueuedTask], now: float) -> Plan:
        self.rounds += 1
        return Plan([self.decide(task) for task in waiting], {})


def to(worker_id: str, *gpu_uuids: str) -> Decide:
    return lambda task: Placement(task.task_id, worker_id, gpu_uuids)


def test_policy_decides_where_a_task_runs(tmp_path: Path) -> None:
    with cluster_with(FixedPolicy(to("b")), tmp_path) as cluster:
        cluster.worker("a")
        b = cluster.worker("b")
        cluster.placed(b)


WRONG: dict[str, tuple[Decide, dict[str, Any]]] = {
    "a worker that is not there": (to("nobody"), {}),
    "a worker that is drained": (to("drained"), {}),
    "more cores than there are": (to("small"), {"cpu_required": 2.0}),
    "more memory than there is": (to("small"), {"memory_required": 9000}),
    "no GPU for one that wants one": (to("gpus"), {"gpu_required": 1}),
    "a GPU for one that wants none": (to("gpus", "GPU-a"), {}),
    "one GPU twice": (to("gpus", "GPU-a", "GPU-a"), {"gpu_required": 2}),
    "a GPU of another": (to("gpus", "GPU-z"), {"gpu_required": 1}),
    "a worker that the task does not want": (to("small"), {"constraints": {"worker_id": ("gpus",)}}),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_placement_is_not_carried_out_and_the_next_may_be_right(case: str, tmp_path: Path) -> None:
    decide, fields = WRONG[case]
    policy = FixedPolicy(decide)
    with cluster_with(policy, tmp_path) as cluster:
        workers = [
            cluster.worker("small", cores=1.0),
            cluster.worker("gpus", gpus=["GPU-a", "GPU-b"]),
            cluster.worker("drained"),
        ]
        cluster.tasks.drain("drained", "")
        task_id = cluster.submit(SMALL.model_copy(update=fields))
        wait_until(lambda: policy.rounds >= 2)
        assert [worker.starts() for worker in workers] == [[], [], []]
        policy.decide = lambda task: best_fit(cluster.tasks._registry.capacity.offers(), [task], 0.0).placements[0]
        if "memory_required" not in fields:
            wait_until(lambda: any((task_id, 1) in worker.starts() for worker in workers))


def test_worker_never_gets_more_than_its_capacity(tmp_path: Path) -> None:
    with cluster_with(FixedPolicy(to("a")), tmp_path) as cluster:
        a = cluster.worker("a", cores=3.0)
        for _ in range(5):
            cluster.submit()
        wait_until(lambda: len(a.starts()) == 3)
        settle()
        assert len(a.starts()) == 3


def test_policy_whose_placements_are_all_wrong_is_called_rarely(tmp_path: Path) -> None:
    policy = FixedPolicy(to("nobody"))
    with cluster_with(policy, tmp_path) as cluster:
        cluster.worker("a")
        cluster.submit()
        wait_until(lambda: policy.rounds >= 1)
        gevent.sleep(1.2)
        assert policy.rounds <= 5


def test_round_of_a_failing_policy_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    answers: list[Any] = [ValueError("no idea"), None, Plan([None], {})]  # type: ignore[list-item]

    def policy(offers: Sequence[Offer], waiting: Sequence[QueuedTask], now: float) -> Plan:
        if not answers:
            return best_fit(offers, waiting, now)
        answer = answers.pop()
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    with cluster_with(policy, tmp_path) as cluster:
        a = cluster.worker("a")
        first = cluster.submit()
        for _ in range(3):
            left = len(answers)
            cluster.tasks._registry.on_capacity_freed()
            wait_until(partial(lambda left: len(answers) < left, left))
        cluster.tasks._registry.on_capacity_freed()
        wait_until(lambda: (first, 1) in a.starts())
    assert caplog.text.count("a round of the scheduler failed") == 3


def test_hanging_policy_is_unhealthy(tmp_path: Path) -> None:
    entered, released = threading.Event(), threading.Event()

    def policy(offers: Sequence[Offer], waiting: Sequence[QueuedTask], now: float) -> Plan:
        entered.set()
        released.wait(20.0)
        return Plan([], {})

    with cluster_with(policy, tmp_path) as cluster:
        cluster.worker("a")
        cluster.submit()
        wait_until(entered.is_set)
        assert cluster.tasks.health_error() is None
        cluster.fleet.clock.advance(STUCK_AFTER_SECONDS + 1)
        assert cluster.tasks.health_error() == "the placement of tasks has been thinking for 31 s"
        released.set()
        wait_until(lambda: cluster.tasks.health_error() is None)
