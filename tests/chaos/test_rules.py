"""The deadline for containers of lost attempts, and the fault that started a silence."""

from typing import Any

import pytest

from tests.chaos import history
from tests.chaos.index import Attempt, HistoryIndex
from tests.chaos.rules.containers import STALE_STOP_SECONDS, stale_deadline
from tests.chaos.rules.fleet import AFTERMATH_SECONDS, first_fault_of_the_round
from tests.chaos.synthetic import EPOCH, TIMEOUT_SECONDS, WORKERS

LOST_AT = EPOCH + 100.0
LOST = Attempt(1, WORKERS[0], "lost", EPOCH, EPOCH, LOST_AT, None, None, "worker_lost")


def index(*records: history.Record) -> HistoryIndex:
    return HistoryIndex([history.RunStarted(EPOCH, "cut", 1, TIMEOUT_SECONDS, WORKERS), *records])


def seen(since: float, until: float, *, active: bool = True) -> list[history.Record]:
    """Listings of the worker, two per second."""
    return [
        history.WorkerListing(LOST_AT + since + step / 2, {WORKERS[0]: active})
        for step in range(int(until - since) * 2)
    ]


def fault(after: float, what: str, worker_id: str = WORKERS[0], number: int = 1) -> history.Fault:
    return history.Fault(LOST_AT + after, number, what, worker_id)


def test_stale_deadline_counts_from_the_return_of_the_worker() -> None:
    history_index = index(*seen(0.5, 10.0, active=False), *seen(10.0, 30.0))
    assert stale_deadline(history_index, LOST) == pytest.approx(LOST_AT + 10.0 + STALE_STOP_SECONDS)


def test_no_stale_deadline_before_or_right_after_the_return() -> None:
    assert stale_deadline(index(*seen(0.5, 30.0, active=False)), LOST) is None
    assert stale_deadline(index(*seen(10.0, 10.0 + STALE_STOP_SECONDS - 1.0)), LOST) is None


def test_activity_before_the_loss_is_no_return() -> None:
    assert stale_deadline(index(*seen(-20.0, 0.0)), LOST) is None


@pytest.mark.parametrize(
    ("what", "worker_id"), [("kill worker", WORKERS[0]), ("stall", WORKERS[0]), ("kill master", "")]
)
def test_fault_of_the_worker_delays_the_deadline(what: str, worker_id: str) -> None:
    history_index = index(*seen(10.0, 30.0), fault(12.2, what, worker_id))
    assert stale_deadline(history_index, LOST) == pytest.approx(LOST_AT + 12.5 + STALE_STOP_SECONDS)


@pytest.mark.parametrize(("what", "worker_id"), [("kill worker", WORKERS[1]), ("heal", WORKERS[0])])
def test_fault_of_another_worker_does_not_delay_the_deadline(what: str, worker_id: str) -> None:
    history_index = index(*seen(10.0, 30.0), fault(12.2, what, worker_id))
    assert stale_deadline(history_index, LOST) == pytest.approx(LOST_AT + 10.0 + STALE_STOP_SECONDS)


def test_unknown_activity_is_no_return() -> None:
    history_index = index(*seen(10.0, 12.0), *seen(20.0, 40.0), fault(12.1, "kill master", ""))
    assert stale_deadline(history_index, LOST) == pytest.approx(LOST_AT + 20.0 + STALE_STOP_SECONDS)


def first_fault(*faults: Any) -> history.Fault | None:
    return first_fault_of_the_round(index(*faults), LOST)


def test_first_fault_of_the_round_started_the_silence() -> None:
    first, second = fault(-5.0, "kill worker", number=2), fault(-4.5, "kill master", "", number=2)
    assert first_fault(fault(-12.0, "cut", number=1), second, first) == first


def test_later_old_and_unrelated_faults_are_ignored() -> None:
    assert first_fault(fault(1.0, "cut")) is None
    assert first_fault(fault(-AFTERMATH_SECONDS - 1.0, "cut")) is None
    assert first_fault(fault(-5.0, "cut", WORKERS[1])) is None
    assert first_fault(fault(-5.0, "heal")) is None
