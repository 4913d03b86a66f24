"""master.audit.trail"""

from functools import partial
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest

from fleetpulse.master.audit.entries import AuditEntry, AuditOutcome
from fleetpulse.master.audit.reader import AuditQuery
from fleetpulse.master.audit.trail import OTHERS, Deduplicator
from fleetpulse.master.errors import AuditUnavailable
from tests.master.audit.given import entry, recorded, refusal
from tests.master.audit.trails import Trail, running_trail, whole_lines, written
from tests.master.fleet import wait_until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "audit.jsonl"


def test_entries_are_written_in_order_and_counted(path: Path) -> None:
    with running_trail(path, clock=lambda: 1_700_000_000.25) as one:
        for number in range(2000):
            one.trail.record(entry(target=str(number)))
        wait_until(lambda: one.count("entries") == 2000)
    assert [line["target"] for line in written(path)] == [str(number) for number in range(2000)]
    assert written(path)[0] == msgspec.to_builtins(recorded(1_700_000_000.25, target="0"))


def test_entries_recorded_before_stop_are_written(path: Path) -> None:
    with running_trail(path) as one:
        one.trail.record(refusal())
        one.trail.record(refusal())
        one.trail.record(entry())
    assert [(line["outcome"], line["repeated"]) for line in written(path)] == [
        ("refused", 0),
        ("ok", 0),
        ("refused", 1),
    ]


def test_equal_refusals_are_summed_up_after_a_second(path: Path) -> None:
    with running_trail(path) as one:
        for _ in range(100):
            one.trail.record(refusal())
        wait_until(lambda: whole_lines(path) == 2)
        one.trail.record(refusal())
        wait_until(lambda: whole_lines(path) == 3)
        for number in range(100):
            one.trail.record(entry(target=f"/api/tasks/task-{number}"))
        wait_until(lambda: whole_lines(path) == 103)
    assert [line["repeated"] for line in written(path)[:3]] == [0, 99, 0]


def test_entries_beyond_the_queue_are_dropped_counted_and_reported(path: Path) -> None:
    one = Trail(path, queue_length=10)
    for number in range(25):
        one.trail.record(entry(target=str(number)))
    assert one.count("entries_dropped", reason="queue_full") == 15
    one.trail.start()
    wait_until(lambda: whole_lines(path) == 11)
    one.trail.record(entry(target="later"))
    one.trail.stop()
    *kept, gap, later = written(path)
    assert [line["target"] for line in kept] == [str(number) for number in range(10)]
    assert (gap["actor"], gap["action"], gap["target"], gap["outcome"]) == ("master", "drop_entries", "15", "failed")
    assert later["target"] == "later"


def has_lost(one: Trail, number: int) -> bool:
    return one.count("entries_dropped", reason="write_failed") == number


def test_unwritable_file_is_logged_once_and_retried(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.mkdir(parents=True)
    with running_trail(path) as one:
        for number in range(3):
            one.trail.record(entry(target=str(number)))
            wait_until(partial(has_lost, one, number + 1))
        assert one.count("failures") == 3
        assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
        assert "Is a directory" in caplog.text
        path.rmdir()
        one.trail.record(entry(target="again"))
        wait_until(lambda: whole_lines(path) == 2)
    again, gap = written(path)
    assert (again["target"], gap["target"]) == ("again", "3")
    assert "can be written again; 3 entries were lost" in caplog.text


def test_hub_does_not_wait_for_the_file(path: Path) -> None:
    one = Trail(path)
    for number in range(1000):
        one.trail.record(entry(target=f"/api/tasks/task-{number}"))
    assert not path.exists()
    one.trail.start()
    one.trail.stop()
    assert len(written(path)) == 1000


def test_trail_is_readable_while_it_is_written(path: Path) -> None:
    with running_trail(path, max_file_bytes=100_000) as one:
        for number in range(2000):
            one.trail.record(entry(target=str(number)))
            if number % 100 == 0:
                gevent.sleep(0)
                page = one.trail.read(AuditQuery(50))
                read = [int(line.target) for line in page.entries]
                assert read == list(range(read[0], read[0] - len(read), -1)) if read else True
        wait_until(lambda: one.count("entries") == 2000)
        assert one.trail.read(AuditQuery(1)).entries[0].target == "1999"
        assert one.trail.read(AuditQuery(1, outcome=AuditOutcome.REFUSED)).entries == []


def test_unreadable_trail_raises_audit_unavailable(path: Path) -> None:
    path.parent.mkdir()
    path.mkdir()
    with pytest.raises(AuditUnavailable, match="Is a directory"):
        Trail(path).trail.read(AuditQuery(1))


def test_first_of_equal_refusals_is_admitted_and_the_rest_summed_up() -> None:
    entries = Deduplicator()
    written = [entries.admit(refusal(target=f"/api/tasks/{n}", detail=str(n))) for n in range(5)]
    assert written == [refusal(target="/api/tasks/0", detail="0"), None, None, None, None]
    assert entries.end() == [(refusal(target="/api/tasks/4", detail="4"), 4)]


def test_single_entry_is_not_repeated() -> None:
    entries = Deduplicator()
    entries.admit(refusal())
    assert entries.end() == []
    assert entries.admit(refusal()) == refusal()


def test_refusals_with_other_actor_action_or_reason_are_admitted() -> None:
    entries = Deduplicator()
    differing = [refusal(client="b"), refusal(action="cancel_task"), refusal(status="403"), refusal(actor="ci"),
                 refusal(detail="token_used: it is"), refusal(detail="token_expired: it is")]  # fmt: skip
    assert [entries.admit(one) for one in (refusal(), *differing)] == [refusal(), *differing]


def test_refusals_with_the_same_reason_are_equal() -> None:
    entries = Deduplicator()
    assert entries.admit(refusal(detail="token_used: by rack-7")) is not None
    assert entries.admit(refusal(detail="token_used: by rack-8")) is None


def test_refusals_of_too_many_clients_lose_their_client() -> None:
    entries = Deduplicator(max_kinds=3)
    written = [entries.admit(refusal(client=f"192.0.2.{n}", actor=f"guess-{n}")) for n in range(100)]
    assert [one.client for one in written if one is not None] == ["192.0.2.0", "192.0.2.1", "192.0.2.2", OTHERS]
    assert [(one.client, one.actor, more) for one, more in entries.end()] == [(OTHERS, OTHERS, 96)]
    assert entries.admit(refusal(client="192.0.2.99")) == refusal(client="192.0.2.99")


def change(**fields: Any) -> AuditEntry:
    return refusal(outcome=AuditOutcome.OK, status="204", **fields)


def test_equal_changes_of_one_target_are_summed_up() -> None:
    entries = Deduplicator()
    written = [entries.admit(change(target="/api/session", detail=str(n))) for n in range(2500)]
    assert [one for one in written if one is not None] == [change(target="/api/session", detail="0")]
    assert entries.end() == [(change(target="/api/session", detail="2499"), 2499)]


def test_changes_of_other_targets_are_always_admitted() -> None:
    entries = Deduplicator(max_kinds=3)
    changes = [change(target=f"/api/tasks/{n}") for n in range(100)]
    assert [entries.admit(one) for one in changes] == changes
    # They take no room from refusals.
    refusals = [refusal(client=f"192.0.2.{n}") for n in range(3)]
    assert [entries.admit(one) for one in refusals] == refusals
    assert entries.end() == []
