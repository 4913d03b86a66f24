"""master.tasks.absence: whose attempts are given up, and when"""

from fleetpulse.master.tasks.absence import LostWorkerTracker
from fleetpulse.master.tasks.mass_loss import EvictionLimiter


def absences() -> LostWorkerTracker:
    return LostWorkerTracker(EvictionLimiter())


def test_attempts_are_given_up_when_the_patience_is_over_and_once() -> None:
    away = absences()
    away.away("rack-7", 5.0, 100.0)
    for now in (100.5, 101.0, 102.0, 103.0, 104.0, 104.75):
        assert away.expired(now) == []
    assert away.expired(105.0) == ["rack-7"]
    assert away.expired(105.25) == []


def test_who_is_back_in_time_keeps_its_attempts() -> None:
    away = absences()
    away.away("rack-7", 1.0, 100.0)
    away.back("rack-7")
    assert away.expired(101.0) == []


def test_who_is_away_already_gets_no_more_patience() -> None:
    away = absences()
    away.away("rack-7", 1.0, 100.0)
    away.away("rack-7", 50.0, 100.5)
    assert away.expired(101.0) == ["rack-7"]


def test_time_in_which_the_master_stood_still_does_not_count() -> None:
    away = absences()
    away.expired(100.0)
    away.away("rack-7", 5.0, 100.0)
    assert away.expired(400.0) == []
    for now in (401.0, 402.0, 403.0, 404.0):
        assert away.expired(now) == []
    assert away.expired(405.0) == ["rack-7"]


def test_nothing_is_given_up_while_most_of_the_fleet_is_gone() -> None:
    away = absences()
    workers = [f"rack-{number}" for number in range(4)]
    for worker_id in workers:
        away.guard.worker_back(worker_id, 100.0)
    for worker_id in workers[:3]:
        away.guard.worker_lost(worker_id, 101.0)
        away.away(worker_id, 0.5, 101.0)
    assert away.expired(102.0) == []
    for worker_id in workers[:2]:
        away.guard.worker_back(worker_id, 102.0)
        away.back(worker_id)
    assert away.expired(102.5) == ["rack-2"]
