"""master.tasks.lost_workers: when attempts of workers that are away are given up"""

import pytest

from fleetpulse.master.tasks.lost_workers import EvictionLimiter, LostWorkerTracker

START = 1000.0
RETURN_SECONDS = 30.0


def a_limiter(workers: int, **settings: float) -> EvictionLimiter:
    """Of a fleet that has been there for a day."""
    limiter = EvictionLimiter(**settings)  # type: ignore[arg-type]  # all but one of them are floats
    for number in range(workers):
        limiter.worker_back(f"w{number}", START - 86_400.0)
    return limiter


def held(limiter: EvictionLimiter, now: float) -> tuple[float | None, int] | None:
    """Since when it holds, and how many workers of the loss are still away; ``None`` when it does not hold."""
    return (limiter._since, len(limiter._away)) if limiter.is_holding(now) else None


def lose(limiter: EvictionLimiter, numbers: range, now: float = START, every_seconds: float = 0.0) -> float:
    for number in numbers:
        limiter.worker_lost(f"w{number}", now)
        now += every_seconds
    return now - every_seconds


@pytest.mark.parametrize(
    ("workers", "lost", "holds"),
    [
        *((10, 5, False), (10, 6, True), (10, 10, True)),
        *((4, 2, False), (4, 3, True), (5, 2, False), (5, 3, True)),
        *((3, 3, False), (2, 2, False), (1, 1, False), (0, 0, False)),
        *((1000, 500, False), (1000, 501, True)),
    ],
)
def test_holds_when_more_than_half_of_the_fleet_is_lost(workers: int, lost: int, holds: bool) -> None:
    limiter = a_limiter(workers)
    lose(limiter, range(lost))
    assert held(limiter, START) == ((START, lost) if holds else None)


def test_does_not_hold_for_workers_that_were_never_seen() -> None:
    limiter = EvictionLimiter()
    lose(limiter, range(100))
    assert not limiter.is_holding(START)


@pytest.mark.parametrize(("every_seconds", "holds"), [(600.0, False), (16.0, False), (12.0, True), (1.0, True)])
def test_only_losses_within_the_window_count(every_seconds: float, holds: bool) -> None:
    limiter = a_limiter(10)
    now = lose(limiter, range(6), every_seconds=every_seconds)
    assert limiter.is_holding(now) is holds


def test_fleet_size_follows_slow_losses() -> None:
    limiter = a_limiter(20)
    now = lose(limiter, range(12), every_seconds=120.0) + 120.0
    lose(limiter, range(12, 16), now)
    assert not limiter.is_holding(now), "4 of 8"
    limiter.worker_lost("w16", now)
    assert held(limiter, now) == (now, 5)


def test_fleet_size_is_that_before_the_loss() -> None:
    """Or with each that is lost it would be smaller, and half of it less."""
    limiter = a_limiter(10)
    for number in range(5):
        limiter.worker_lost(f"w{number}", START + number)
        assert not limiter.is_holding(START + number)


def test_hold_ends_when_half_of_the_lost_workers_are_back() -> None:
    limiter = a_limiter(10)
    lose(limiter, range(8))
    for number in range(3):
        limiter.worker_back(f"w{number}", START + 100.0)
        assert held(limiter, START + 100.0) == (START, 7 - number)
    limiter.worker_back("w3", START + 101.0)
    assert not limiter.is_holding(START + 101.0)


def test_hold_does_not_begin_again_for_the_same_loss() -> None:
    limiter = a_limiter(10)
    lose(limiter, range(8))
    for number in range(4):
        limiter.worker_back(f"w{number}", START + 1.0)
    assert not limiter.is_holding(START + 1.0)
    assert not limiter.is_holding(START + 2.0)


def test_new_workers_do_not_end_the_hold() -> None:
    limiter = a_limiter(10)
    lose(limiter, range(8))
    for number in range(100, 120):
        limiter.worker_back(f"w{number}", START + 1.0)
    assert limiter.is_holding(START + 1.0)


def test_hold_ends_after_ten_minutes() -> None:
    limiter = a_limiter(10)
    lose(limiter, range(8))
    assert limiter.is_holding(START + 599.9)
    assert not limiter.is_holding(START + 600.0)
    assert not limiter.is_holding(START + 601.0)


def test_workers_lost_during_the_hold_count_as_lost() -> None:
    limiter = a_limiter(10)
    lose(limiter, range(6))
    lose(limiter, range(6, 10), START + 300.0)
    assert held(limiter, START + 300.0) == (START, 10)
    for number in range(4):
        limiter.worker_back(f"w{number}", START + 301.0)
    assert limiter.is_holding(START + 301.0), "4 of 10"
    limiter.worker_back("w4", START + 301.0)
    assert not limiter.is_holding(START + 301.0)


def test_worker_that_is_lost_again_during_the_hold_is_away() -> None:
    limiter = a_limiter(10)
    lose(limiter, range(6))
    for _ in range(3):
        limiter.worker_back("w0", START + 1.0)
        limiter.worker_lost("w0", START + 2.0)
    assert held(limiter, START + 2.0) == (START, 6)


def test_workers_that_came_back_for_a_moment_do_not_end_the_hold() -> None:
    limiter = a_limiter(10)
    lose(limiter, range(6))
    for number in range(3):
        if number:
            limiter.worker_lost(f"w{number - 1}", START + number)
        limiter.worker_back(f"w{number}", START + number)
    limiter.worker_lost("w2", START + 3.0)
    for number in (3, 4):
        limiter.worker_back(f"w{number}", START + 4.0)
    assert held(limiter, START + 4.0) == (START, 4), "2 of 6"


def test_worker_that_came_back_and_left_is_no_part_of_the_loss() -> None:
    limiter = a_limiter(10)
    lose(limiter, range(6))
    for number in range(2):
        limiter.worker_back(f"w{number}", START + 1.0)
        limiter.worker_left(f"w{number}", START + 2.0)
    limiter.worker_back("w2", START + 3.0)
    assert limiter.is_holding(START + 3.0), "1 of 4"
    limiter.worker_back("w3", START + 3.0)
    assert not limiter.is_holding(START + 3.0), "2 of 4"


def test_flapping_worker_counts_once() -> None:
    limiter = a_limiter(10)
    for second in range(20):
        limiter.worker_lost("w0", START + second)
        limiter.worker_lost("w0", START + second)
        limiter.worker_back("w0", START + second)
    assert not limiter.is_holding(START + 20.0)


def test_worker_that_left_is_not_counted() -> None:
    limiter = a_limiter(10)
    for number in range(6):
        limiter.worker_left(f"w{number}", START)
    assert not limiter.is_holding(START), "an upgrade of the fleet"
    lose(limiter, range(6, 8))
    assert not limiter.is_holding(START), "2 of 4"
    limiter.worker_lost("w8", START)
    assert held(limiter, START) == (START, 3)


def test_lost_worker_that_is_removed_does_not_count() -> None:
    limiter = a_limiter(10)
    lose(limiter, range(5))
    limiter.worker_left("w0", START + 1.0)
    limiter.worker_lost("w5", START + 2.0)
    assert held(limiter, START + 2.0) == (START + 2.0, 5)
    for number in (1, 2):
        limiter.worker_left(f"w{number}", START + 3.0)
    limiter.worker_back("w3", START + 4.0)
    assert limiter.is_holding(START + 4.0), "1 of 3"
    limiter.worker_left("w4", START + 5.0)
    assert not limiter.is_holding(START + 5.0), "1 of 2"


def test_hold_ends_when_all_lost_workers_are_removed() -> None:
    limiter = a_limiter(4)
    lose(limiter, range(3))
    for number in range(3):
        limiter.worker_left(f"w{number}", START + 1.0)
    assert not limiter.is_holding(START + 1.0)


def test_later_loss_begins_a_new_hold() -> None:
    limiter = a_limiter(10)
    lose(limiter, range(8))
    for number in range(8):
        limiter.worker_back(f"w{number}", START + 10.0)
    later = START + 500.0
    lose(limiter, range(7), later)
    assert held(limiter, later) == (later, 7)


def test_limits_can_be_set() -> None:
    limiter = a_limiter(10, lost_ratio=0.2, back_ratio=1.0, window_seconds=10.0, hold_seconds=20.0, min_fleet=10)
    lose(limiter, range(3))
    limiter.worker_back("w0", START + 1.0)
    limiter.worker_back("w1", START + 1.0)
    assert limiter.is_holding(START + 19.9)
    assert not limiter.is_holding(START + 20.0)
    limiter.worker_left("w9", START + 30.0)
    lose(limiter, range(9), START + 30.0)
    assert not limiter.is_holding(START + 30.0), "9 are no fleet"


# The deadlines of single workers


def tracker() -> LostWorkerTracker:
    return LostWorkerTracker(EvictionLimiter(), RETURN_SECONDS)


def test_attempts_are_lost_once_when_the_grace_period_ends() -> None:
    lost_workers = tracker()
    lost_workers.away("rack-7", 5.0, 100.0)
    for now in (100.5, 101.0, 102.0, 103.0, 104.0, 104.75):
        assert lost_workers.expired(now) == []
    assert lost_workers.expired(105.0) == ["rack-7"]
    assert lost_workers.expired(105.25) == []


def test_worker_that_is_back_in_time_keeps_its_attempts() -> None:
    lost_workers = tracker()
    lost_workers.away("rack-7", 1.0, 100.0)
    lost_workers.back("rack-7")
    assert lost_workers.expired(101.0) == []


def test_worker_that_is_away_already_keeps_its_deadline() -> None:
    lost_workers = tracker()
    lost_workers.away("rack-7", 1.0, 100.0)
    lost_workers.away("rack-7", 50.0, 100.5)
    assert lost_workers.expired(101.0) == ["rack-7"]


def test_time_in_which_the_master_stalled_does_not_count() -> None:
    lost_workers = tracker()
    lost_workers.expired(100.0)
    lost_workers.away("rack-7", 5.0, 100.0)
    assert lost_workers.expired(400.0) == []
    for now in (401.0, 402.0, 403.0, 404.0):
        assert lost_workers.expired(now) == []
    assert lost_workers.expired(405.0) == ["rack-7"]


def test_workers_that_are_away_when_a_hold_ends_get_the_time_to_come_back() -> None:
    lost_workers = tracker()
    workers = [f"rack-{number}" for number in range(4)]
    for worker_id in workers:
        lost_workers.limiter.worker_back(worker_id, 100.0)
    for worker_id in workers[:3]:
        lost_workers.limiter.worker_lost(worker_id, 101.0)
        lost_workers.away(worker_id, 0.5, 101.0)
    assert lost_workers.expired(102.0) == []
    for worker_id in workers[:2]:
        lost_workers.limiter.worker_back(worker_id, 102.0)
        lost_workers.back(worker_id)
    assert first_lost(lost_workers, 103, 300) == (133, ["rack-2"]), "30 s after the first check that sees the end"


def expecting(*worker_ids: str, grace_seconds: float = 35.0) -> LostWorkerTracker:
    """Of a master that started at 100.0."""
    lost_workers = tracker()
    lost_workers.limiter.expect(worker_ids, 100.0)
    for worker_id in worker_ids:
        lost_workers.away(worker_id, grace_seconds, 100.0)
    return lost_workers


def come_back(lost_workers: LostWorkerTracker, worker_id: str, now: float) -> None:
    lost_workers.limiter.worker_back(worker_id, now)
    lost_workers.back(worker_id)


def first_lost(lost_workers: LostWorkerTracker, since: int, until: int) -> tuple[int, list[str]] | None:
    """When anybody is lost first, and who."""
    for now in range(since, until):
        if lost := lost_workers.expired(now):
            return now, sorted(lost)
    return None


@pytest.mark.parametrize("workers", [2, 3, 4, 40])
def test_start_gives_nothing_up_for_ten_minutes_while_nobody_comes(workers: int) -> None:
    worker_ids = [f"w{number}" for number in range(workers)]
    assert first_lost(expecting(*worker_ids), 100, 2000) == (700, sorted(worker_ids))


def test_start_with_a_single_worker_does_not_hold() -> None:
    """As in a small fleet under a running master: it may well be gone."""
    lost_workers = expecting("rack-7")
    assert not lost_workers.limiter.is_holding(100.0)
    assert first_lost(lost_workers, 100, 2000) == (135, ["rack-7"])


def test_start_without_live_attempts_does_not_hold() -> None:
    assert not expecting().limiter.is_holding(100.0)


def test_start_holds_until_half_of_the_expected_workers_are_back() -> None:
    lost_workers = expecting("w0", "w1", "w2", "w3")
    assert first_lost(lost_workers, 100, 300) is None
    come_back(lost_workers, "w0", 300.0)
    come_back(lost_workers, "a new one", 300.0)
    assert lost_workers.limiter.is_holding(300.0), "1 of 4"
    come_back(lost_workers, "w1", 301.0)
    assert not lost_workers.limiter.is_holding(301.0)


def test_second_half_of_a_large_fleet_has_more_time_than_the_first_needed() -> None:
    """Or a slow master, which takes longer than the timeout for each half, would give up the second meanwhile."""
    workers = [f"w{number}" for number in range(100)]
    lost_workers = expecting(*workers)
    for number, worker_id in enumerate(workers):
        come_back(lost_workers, worker_id, 100.0 + number)
        assert lost_workers.expired(100.0 + number) == []
    assert first_lost(lost_workers, 199, 2000) is None


def test_workers_that_came_back_after_a_start_are_lost_as_ever() -> None:
    lost_workers = expecting("w0", "w1")
    come_back(lost_workers, "w0", 101.0)
    come_back(lost_workers, "w1", 102.0)
    assert first_lost(lost_workers, 102, 150) is None
    lost_workers.limiter.worker_lost("w0", 150.0)
    lost_workers.away("w0", 5.0, 150.0)
    assert first_lost(lost_workers, 150, 300) == (155, ["w0"])


def test_goodbyes_end_the_hold_of_a_start() -> None:
    lost_workers = expecting("w0", "w1", "w2")
    lost_workers.limiter.worker_left("w0", 101.0)
    assert lost_workers.limiter.is_holding(101.0)
    come_back(lost_workers, "w1", 102.0)
    assert not lost_workers.limiter.is_holding(102.0), "1 of 2"
