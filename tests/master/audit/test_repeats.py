"""master.audit.repeats"""

from typing import Any

from fleetpulse.master.audit.entry import AuditEntry, AuditOutcome
from fleetpulse.master.audit.repeats import OTHERS, Repeats
from tests.master.audit.given import refusal


def test_of_equal_refusals_the_first_is_told_and_the_others_together() -> None:
    repeats = Repeats()
    told = [repeats.admit(refusal(target=f"/api/tasks/{n}", detail=str(n))) for n in range(5)]
    assert told == [refusal(target="/api/tasks/0", detail="0"), None, None, None, None]
    assert repeats.end() == [(refusal(target="/api/tasks/4", detail="4"), 4)]


def test_what_came_once_is_told_once() -> None:
    repeats = Repeats()
    repeats.admit(refusal())
    assert repeats.end() == []
    assert repeats.admit(refusal()) == refusal()


def test_refusals_that_differ_in_who_what_or_why_are_told_apart() -> None:
    repeats = Repeats()
    differing = [refusal(client="b"), refusal(action="cancel_task"), refusal(status="403"), refusal(actor="ci"),
                 refusal(detail="token_used: it is"), refusal(detail="token_expired: it is")]  # fmt: skip
    assert [repeats.admit(one) for one in (refusal(), *differing)] == [refusal(), *differing]


def test_of_one_reason_in_other_words_the_first_is_told() -> None:
    repeats = Repeats()
    assert repeats.admit(refusal(detail="token_used: by rack-7")) is not None
    assert repeats.admit(refusal(detail="token_used: by rack-8")) is None


def test_of_very_many_clients_not_every_one_is_told() -> None:
    repeats = Repeats(most_kinds=3)
    told = [repeats.admit(refusal(client=f"192.0.2.{n}", actor=f"guess-{n}")) for n in range(100)]
    assert [one.client for one in told if one is not None] == ["192.0.2.0", "192.0.2.1", "192.0.2.2", OTHERS]
    assert [(one.client, one.actor, more) for one, more in repeats.end()] == [(OTHERS, OTHERS, 96)]
    assert repeats.admit(refusal(client="192.0.2.99")) == refusal(client="192.0.2.99")


def change(**fields: Any) -> AuditEntry:
    return refusal(outcome=AuditOutcome.OK, status="204", **fields)


def test_of_equal_changes_of_one_thing_the_first_is_told_and_the_others_together() -> None:
    repeats = Repeats()
    told = [repeats.admit(change(target="/api/session", detail=str(n))) for n in range(2500)]
    assert [one for one in told if one is not None] == [change(target="/api/session", detail="0")]
    assert repeats.end() == [(change(target="/api/session", detail="2499"), 2499)]


def test_no_change_of_another_thing_is_left_out_however_many_there_are() -> None:
    repeats = Repeats(most_kinds=3)
    changes = [change(target=f"/api/tasks/{n}") for n in range(100)]
    assert [repeats.admit(one) for one in changes] == changes
    # They take no room from refusals.
    refusals = [refusal(client=f"192.0.2.{n}") for n in range(3)]
    assert [repeats.admit(one) for one in refusals] == refusals
    assert repeats.end() == []
