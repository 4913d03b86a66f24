"""master.tasks.placement over time: a task that waits in a full fleet is placed, whatever else is submitted"""

from collections.abc import Callable, Iterator
from itertools import count

import pytest

from fleetpulse.master.tasks.placement import (
    RESERVATION_TURN_SECONDS,
    RESERVE_AFTER_SECONDS,
    SECONDS_PER_PRIORITY_LEVEL,
    Offer,
    QueuedTask,
    ResourceAmounts,
    best_fit,
)
from tests.master.tasks.offers import a_task, after, an_offer

STEP_SECONDS = 5.0
LONG = 100_000.0


class Simulation:
    """A fleet in which everything that is placed runs for its time, a round every five seconds."""

    def __init__(self, offers: list[Offer], run_seconds: Callable[[QueuedTask], float]) -> None:
        self.offers = offers
        self.now = 0.0
        self.waiting: list[QueuedTask] = []
        self.placed_at: dict[str, float] = {}
        self._run_seconds = run_seconds
        self._running: list[tuple[float, QueuedTask, str, tuple[str, ...]]] = []

    def step(self, arrivals: list[QueuedTask]) -> None:
        self.now += STEP_SECONDS
        self._end_what_is_over()
        self.waiting += arrivals
        decided = best_fit(self.offers, self.waiting, self.now)
        self.offers = after(self.offers, self.waiting, decided.placements)
        tasks = {task.task_id: task for task in self.waiting}
        for task_id, worker_id, gpu_uuids in decided.placements:
            task = tasks.pop(task_id)
            self.placed_at[task_id] = self.now
            self._running.append((self.now + self._run_seconds(task), task, worker_id, gpu_uuids))
        self.waiting = list(tasks.values())

    def _end_what_is_over(self) -> None:
        for run in [run for run in self._running if run[0] <= self.now]:
            self._running.remove(run)
            _, task, worker_id, gpu_uuids = run
            self.offers = [
                offer._replace(
                    free=ResourceAmounts(*map(sum, zip(offer.free, task.demand, strict=True))),
                    free_gpu_uuids=(*offer.free_gpu_uuids, *gpu_uuids),
                )
                if offer.worker_id == worker_id
                else offer
                for offer in self.offers
            ]


def numbered(prefix: str) -> Iterator[str]:
    return (f"{prefix}-{number:05}" for number in count())


def test_large_task_is_placed_despite_a_stream_of_small_ones() -> None:
    simulation = Simulation([an_offer("a"), an_offer("b"), an_offer("c")], lambda task: 60.0)
    names = numbered("small")
    for _ in range(12):  # the fleet is full, and never falls idle by itself
        simulation.step([a_task(next(names), queued_at=simulation.now)])
    large = a_task("large", cpu=4.0, queued_at=simulation.now)
    simulation.waiting.append(large)
    while "large" not in simulation.placed_at and simulation.now < 1000.0:
        simulation.step([a_task(next(names), queued_at=simulation.now) for _ in range(2)])
    assert simulation.placed_at["large"] - large.queued_at <= RESERVE_AFTER_SECONDS + 60.0 + STEP_SECONDS
    assert len(simulation.placed_at) > 20, "small ones went on elsewhere"


def test_large_task_would_starve_without_a_reservation() -> None:
    """What the test above rests on: before its reservation, the large task never finds room."""
    simulation = Simulation([an_offer("a"), an_offer("b"), an_offer("c")], lambda task: 60.0)
    names = numbered("small")
    for _ in range(100):
        simulation.step([a_task(next(names), queued_at=simulation.now) for _ in range(2)])
        assert max(offer.free.cpu_millicores for offer in simulation.offers) < 4000 or simulation.now < 60.0


def test_low_priority_task_is_placed_despite_a_stream_of_high_ones() -> None:
    simulation = Simulation([an_offer("a", cpu=2.0)], lambda task: 10.0)
    names = numbered("high")
    low = a_task("low", priority=0)
    simulation.waiting.append(low)
    while "low" not in simulation.placed_at and simulation.now < 3000.0:
        simulation.step([a_task(next(names), priority=5, queued_at=simulation.now) for _ in range(3)])
    # They come three times as fast as they can be run. Those of the first five minutes go first, all others behind it.
    assert simulation.placed_at["low"] == pytest.approx(3 * 5 * SECONDS_PER_PRIORITY_LEVEL, abs=4 * STEP_SECONDS)
    assert len(simulation.waiting) > 300, "high ones still wait"


def test_high_priorities_go_first_in_the_same_queue() -> None:
    simulation = Simulation([an_offer("a", cpu=1.0)], lambda task: 10.0)
    simulation.waiting = [a_task(f"p{priority}", priority=priority) for priority in range(5)]
    for _ in range(10):
        simulation.step([])
    assert sorted(simulation.placed_at, key=simulation.placed_at.__getitem__) == ["p4", "p3", "p2", "p1", "p0"]


def test_several_old_tasks_get_reservations_at_once() -> None:
    simulation = Simulation([an_offer(f"w{number}") for number in range(6)], lambda task: 60.0)
    names = numbered("small")
    for _ in range(12):
        simulation.step([a_task(next(names), queued_at=simulation.now) for _ in range(2)])
    simulation.waiting += [a_task(f"large-{number}", cpu=4.0, queued_at=simulation.now) for number in range(3)]
    began = simulation.now
    for _ in range(30):
        simulation.step([a_task(next(names), queued_at=simulation.now) for _ in range(3)])
    assert all(simulation.placed_at[f"large-{number}"] - began <= 100.0 for number in range(3))


def test_reservation_moves_on_from_a_worker_that_never_drains() -> None:
    """On ``a`` least is missing, but its one task runs on; ``b`` would drain if it were let."""
    simulation = Simulation([an_offer("a"), an_offer("b")], lambda task: LONG if task.task_id == "service" else 60.0)
    simulation.step([a_task("service", cpu=0.5, constraints={"worker_id": ("a",)})])
    names = numbered("small")
    large = a_task("large", cpu=4.0, queued_at=simulation.now)
    for _ in range(4):
        simulation.step([a_task(next(names), constraints={"worker_id": ("b",)}, queued_at=simulation.now)])
    simulation.waiting.append(large)
    while "large" not in simulation.placed_at and simulation.now < 5000.0:
        simulation.step([a_task(next(names), constraints={"worker_id": ("b",)}, queued_at=simulation.now)])
    assert simulation.placed_at["large"] <= 3 * RESERVATION_TURN_SECONDS
