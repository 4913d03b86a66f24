"""master.audit.trail"""

from functools import partial
from pathlib import Path

import gevent
import pytest

from fleetpulse.master.audit.entry import AuditOutcome
from fleetpulse.master.audit.reader import AuditQuery
from fleetpulse.master.errors import AuditUnavailable
from tests.master.audit.given import entry, refusal
from tests.master.audit.trails import Trail, running_trail, whole_lines, written
from tests.master.fleet import wait_until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "audit.jsonl"


def test_what_is_recorded_is_written_in_order_and_counted(path: Path) -> None:
    with running_trail(path, clock=lambda: 1_700_000_000.25) as one:
        for number in range(2000):
            one.trail.record(entry(target=str(number)))
        wait_until(lambda: one.count("entries") == 2000)
    assert [line["target"] for line in written(path)] == [str(number) for number in range(2000)]
    assert written(path)[0] == {**entry(target="0")._asdict(), "time": 1_700_000_000.25, "repeated": 0}


def test_what_was_recorded_before_a_stop_is_written(path: Path) -> None:
    with running_trail(path) as one:
        one.trail.record(refusal())
        one.trail.record(refusal())
        one.trail.record(entry())
    assert [(line["outcome"], line["repeated"]) for line in written(path)] == [
        ("refused", 0),
        ("ok", 0),
        ("refused", 1),
    ]


def test_equal_refusals_are_told_together_when_the_second_is_over(path: Path) -> None:
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


def test_what_has_no_room_is_dropped_counted_and_told(path: Path) -> None:
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


def test_a_file_that_cannot_be_written_is_told_once_and_tried_again(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
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


def test_the_hub_does_not_wait_for_the_file(path: Path) -> None:
    one = Trail(path)
    for number in range(1000):
        one.trail.record(entry(target=f"/api/tasks/task-{number}"))
    assert not path.exists()
    one.trail.start()
    one.trail.stop()
    assert len(written(path)) == 1000


def test_it_can_be_read_while_it_is_written(path: Path) -> None:
    with running_trail(path, max_file_bytes=100_000) as one:
        for number in range(2000):
            one.trail.record(entry(target=str(number)))
            if number % 100 == 0:
                gevent.sleep(0)
                page = one.trail.read(AuditQuery(50))
                told = [int(line["target"]) for line in page.entries]
                assert told == list(range(told[0], told[0] - len(told), -1)) if told else True
        wait_until(lambda: one.count("entries") == 2000)
        assert one.trail.read(AuditQuery(1)).entries[0]["target"] == "1999"
        assert one.trail.read(AuditQuery(1, outcome=AuditOutcome.REFUSED)).entries == []


def test_a_trail_that_cannot_be_read_says_so(path: Path) -> None:
    path.parent.mkdir()
    path.mkdir()
    with pytest.raises(AuditUnavailable, match="Is a directory"):
        Trail(path).trail.read(AuditQuery(1))
