"""How long what is lost may run on, and where a silence began: the two judgements that need thought."""

from typing import Any

import pytest

from tests.chaos import history
from tests.chaos.fabricate import EPOCH, TIMEOUT_SECONDS, WORKERS
from tests.chaos.rules.containers import STALE_STOP_SECONDS, stale_deadline
from tests.chaos.rules.fleet import AFTERMATH_SECONDS, first_fault_of_the_round
from tests.chaos.story import AttemptStory, Story

LOST_AT = EPOCH + 100.0
LOST = AttemptStory(1, WORKERS[0], "lost", EPOCH, EPOCH, LOST_AT, None, None, "worker_lost")


def story(*records: history.Record) -> Story:
    return Story([history.Began(EPOCH, "cut", 1, TIMEOUT_SECONDS, WORKERS), *records])


def seen(since: float, until: float, *, active: bool = True) -> list[history.Record]:
    """The worker, looked at twice a second."""
    return [
        history.WorkersSeen(LOST_AT + since + step / 2, {WORKERS[0]: active}) for step in range(int(until - since) * 2)
    ]


def fault(after: float, what: str, worker_id: str = WORKERS[0], number: int = 1) -> history.Fault:
    return history.Fault(LOST_AT + after, number, what, worker_id)


def test_the_deadline_counts_from_the_return() -> None:
    told = story(*seen(0.5, 10.0, active=False), *seen(10.0, 30.0))
    assert stale_deadline(told, LOST) == pytest.approx(LOST_AT + 10.0 + STALE_STOP_SECONDS)


def test_there_is_none_without_a_return_or_right_after_one() -> None:
    assert stale_deadline(story(*seen(0.5, 30.0, active=False)), LOST) is None
    assert stale_deadline(story(*seen(10.0, 10.0 + STALE_STOP_SECONDS - 1.0)), LOST) is None


def test_what_was_seen_before_the_loss_is_no_return() -> None:
    assert stale_deadline(story(*seen(-20.0, 0.0)), LOST) is None


@pytest.mark.parametrize(
    ("what", "worker_id"), [("kill worker", WORKERS[0]), ("stall", WORKERS[0]), ("kill master", "")]
)
def test_another_fault_puts_it_off(what: str, worker_id: str) -> None:
    told = story(*seen(10.0, 30.0), fault(12.2, what, worker_id))
    assert stale_deadline(told, LOST) == pytest.approx(LOST_AT + 12.5 + STALE_STOP_SECONDS)


@pytest.mark.parametrize(("what", "worker_id"), [("kill worker", WORKERS[1]), ("heal", WORKERS[0])])
def test_the_fault_of_another_and_a_mend_do_not(what: str, worker_id: str) -> None:
    told = story(*seen(10.0, 30.0), fault(12.2, what, worker_id))
    assert stale_deadline(told, LOST) == pytest.approx(LOST_AT + 10.0 + STALE_STOP_SECONDS)


def test_a_master_that_does_not_answer_is_no_return() -> None:
    told = story(*seen(10.0, 12.0), *seen(20.0, 40.0), fault(12.1, "kill master", ""))
    assert stale_deadline(told, LOST) == pytest.approx(LOST_AT + 20.0 + STALE_STOP_SECONDS)


def blamed(*faults: Any) -> history.Fault | None:
    return first_fault_of_the_round(story(*faults), LOST)


def test_the_silence_began_with_the_first_fault_of_the_round() -> None:
    first, second = fault(-5.0, "kill worker", number=2), fault(-4.5, "kill master", "", number=2)
    assert blamed(fault(-12.0, "cut", number=1), second, first) == first


def test_nothing_is_blamed_on_what_was_later_long_ago_or_elsewhere() -> None:
    assert blamed(fault(1.0, "cut")) is None
    assert blamed(fault(-AFTERMATH_SECONDS - 1.0, "cut")) is None
    assert blamed(fault(-5.0, "cut", WORKERS[1])) is None
    assert blamed(fault(-5.0, "heal")) is None
