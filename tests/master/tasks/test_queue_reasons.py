"""master.tasks.queue_reasons: the sentence on why a task is queued"""

import pytest

from fleetpulse.master.tasks.placement import Offer, QueuedTask, best_fit
from fleetpulse.master.tasks.queue_reasons import explain
from tests.master.tasks.offers import a_task, after, an_offer

EU = {"zone": ("eu",)}
GPUS = ["g1", "g2", "g3", "g4"]


def drained(worker_id: str, cpu: float = 4.0) -> Offer:
    return an_offer(worker_id, cpu=cpu, refusal="it is drained: new disks")


NO_MATCH = [
    ([], a_task("t"), "there is no worker"),
    ([an_offer("a")], a_task("t", constraints=EU), "no worker has the label zone=eu"),
    (
        [an_offer("a", labels={"zone": "asia"})],
        a_task("t", constraints={"zone": ("us", "eu")}),
        "no worker has the label zone=eu or us",
    ),
    ([an_offer("a")], a_task("t", constraints={"worker_id": ("b",)}), "no worker has the id b"),
    ([an_offer("a")], a_task("t", constraints={"zone": ()}), "no worker has the label zone=(no value is allowed)"),
    (
        [an_offer("a", labels={"zone": "eu"}), an_offer("b", labels={"disk": "ssd"})],
        a_task("t", constraints={"zone": ("eu",), "disk": ("ssd",)}),
        "no worker has disk=ssd and zone=eu together",
    ),
]

NEVER = [
    (
        [an_offer("worker-9", cpu=32.0), an_offer("worker-1", cpu=8.0)],
        a_task("t", cpu=64.0),
        "needs 64 CPU cores, and the largest worker, worker-9, has 32",
    ),
    (
        [an_offer("a", memory=16.0), an_offer("b", memory=8.5)],
        a_task("t", memory=16.25, gpus=2),
        (
            "needs 16640 MiB of memory, and the largest worker, a, has 16 GiB; "
            "needs 2 GPUs, and the largest worker, a, has 0"
        ),
    ),
    (
        [an_offer("a", cpu=32.0), an_offer("b", labels={"zone": "eu"})],
        a_task("t", cpu=4.5, constraints=EU),
        "needs 4.5 CPU cores, and the largest worker that satisfies the constraints, b, has 4",
    ),
    (
        [an_offer("a", cpu=32.0), an_offer("b", gpus=GPUS)],
        a_task("t", cpu=5.0, gpus=4),
        (
            "no worker is large enough for 5 CPU cores, 1 GiB of memory and 4 GPUs together: "
            "the closest, b, has 1 CPU core too little"
        ),
    ),
    (
        [drained("a", cpu=2.0)],
        a_task("t", cpu=4.0),
        "needs 4 CPU cores, and the largest worker, a, has 2",
    ),
]

REFUSED = [
    ([drained("a")], a_task("t"), "the only worker that could hold it, a, takes no tasks: it is drained: new disks"),
    (
        [drained("a"), an_offer("b", cpu=2.0)],
        a_task("t", cpu=4.0),
        "the only worker that could hold it, a, takes no tasks: it is drained: new disks",
    ),
    (
        [drained("a"), drained("b"), an_offer("c", refusal="Docker is not running"), an_offer("d", cpu=0.5)],
        a_task("t"),
        (
            "the 3 workers that could hold it take no tasks: "
            "2 because it is drained: new disks; 1 because Docker is not running"
        ),
    ),
    (
        [an_offer(f"w{number}", refusal=f"reason {number}") for number in range(6)],
        a_task("t"),
        (
            "the 6 workers that could hold it take no tasks: "
            "1 because reason 0; 1 because reason 1; 1 because reason 2; 3 for other reasons"
        ),
    ),
]

SHORT = [
    (
        [an_offer("worker-3", cpu=8.0, taken=(6.5, 0.0, ())), an_offer("worker-4", cpu=6.0, taken=(5.0, 0.0, ()))],
        a_task("t", cpu=4.0),
        "no worker has 4 CPU cores free: the most is 1.5 on worker-3, of 8",
    ),
    (
        [an_offer("a", taken=(3.5, 15.5, ()))],
        a_task("t"),
        (
            "no worker has 1 CPU core free: the most is 0.5 on a, of 4; "
            "nor 1 GiB of memory free: the most is 512 MiB on a, of 16 GiB"
        ),
    ),
    (
        [an_offer("a", gpus=GPUS, taken=(0.0, 0.0, GPUS[:3]))],
        a_task("t", gpus=2),
        "no worker has 2 GPUs free: the most is 1 on a, of 4",
    ),
    (
        [an_offer("a", taken=(3.0, 0.0, ())), an_offer("b", taken=(0.0, 15.0, ()))],
        a_task("t", cpu=2.0, memory=4.0),
        "no worker has 2 CPU cores and 4 GiB of memory free together: the closest, a, has 1 CPU core too little",
    ),
    (
        [an_offer("a", taken=(4.0, 0.0, ())), drained("b"), drained("c"), an_offer("d", cpu=0.5)],
        a_task("t"),
        ("no worker has 1 CPU core free: the most is 0 on a, of 4; 2 more could hold it, but take no tasks now"),
    ),
    (
        [an_offer("a", taken=(4.5, 0.0, ()), labels={"zone": "eu"}), an_offer("b")],
        a_task("t", constraints=EU),
        "no worker that satisfies the constraints has 1 CPU core free: the most is 0 on a, of 4",
    ),
    (
        [an_offer("a", cpu=32.0, taken=(0.001, 0.0, ()))],
        a_task("t", cpu=32.0),
        "no worker has 32 CPU cores free: the most is 31.999 on a, of 32",
    ),
]

IN_TURN = [
    (
        [an_offer("a")],
        a_task("t"),
        "waits for its turn: there is room for it, and tasks with higher priority or age are placed first",
    ),
]


@pytest.mark.parametrize(("offers", "waiting", "sentence"), NO_MATCH + NEVER + REFUSED + SHORT + IN_TURN)
def test_reason_of_a_queued_task(offers: list[Offer], waiting: QueuedTask, sentence: str) -> None:
    assert explain(waiting, offers) == sentence


def test_reason_of_a_task_with_a_reserved_worker() -> None:
    offers = [an_offer("a", gpus=GPUS, taken=(2.5, 0.0, GPUS[:1])), an_offer("b", taken=(4.0, 0.0, ()))]
    large, small = a_task("large", cpu=4.0, gpus=4), a_task("small", queued_at=100.0)
    decided = best_fit(offers, [large, small], 100.0)
    assert explain(large, offers, decided.reservations) == (
        "waits until 2.5 CPU cores and 1 GPU more come free on a, which is kept for it"
    )
    assert explain(small, offers, decided.reservations) == (
        "there is room for it only on a, kept for a task that waits for longer (large)"
    )
    drained_since = [offer._replace(free=offer.total, free_gpu_uuids=offer.gpu_uuids) for offer in offers]
    assert explain(large, drained_since, decided.reservations) == "is about to be placed on a, which is kept for it"


def test_reason_when_fitting_workers_are_reserved_for_others() -> None:
    offers = [an_offer("a"), an_offer("b")]
    sentence = explain(a_task("t"), offers, {"a": "x", "b": "y"})
    assert sentence == "there is room for it only on 2 workers such as a, kept for a task that waits for longer (x)"
    assert explain(a_task("t"), offers, {"a": "x"}).startswith("waits for its turn")


def test_task_that_was_not_placed_never_waits_for_its_turn() -> None:
    """After a round nothing that fits is left over, so nobody is told to wait for a turn that has passed."""
    offers = [an_offer("a", gpus=GPUS), an_offer("b", cpu=8.0), drained("c")]
    tasks = [a_task(f"t{number}", cpu=number % 5 + 1, gpus=number % 3, queued_at=number) for number in range(30)]
    for now in (29.0, 100.0):
        decided = best_fit(offers, tasks, now)
        left = after(offers, tasks, decided.placements)
        placed = {placement.task_id for placement in decided.placements}
        sentences = [explain(task, left, decided.reservations) for task in tasks if task.task_id not in placed]
        assert len(sentences) > 10
        assert not [sentence for sentence in sentences if "turn" in sentence or "about to" in sentence]
