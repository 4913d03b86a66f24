"""master.audit.reader"""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetpulse.master.audit.entries import KEPT_FILES, AuditFiles, AuditOutcome, AuditRecord, files_of, line_of
from fleetpulse.master.audit.reader import AuditQuery, read_page
from fleetpulse.master.errors import InvalidCursor
from tests.master.audit.given import entry, recorded, refusal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def write(path: Path, lines: Sequence[bytes], max_bytes: int = 10_000_000) -> None:
    files = AuditFiles(path, max_bytes)
    for line in lines:
        files.append(line)
    files.close()


def numbered(count: int, first: int = 0) -> list[bytes]:
    return [line_of(float(n), entry(target=str(n), detail="d" * (n % 7 * 30))) for n in range(first, first + count)]


def targets(entries: Sequence[AuditRecord]) -> list[int]:
    return [int(one.target) for one in entries]


def all_pages(path: Path, query: AuditQuery, max_read_bytes: int = 10**9) -> list[int]:
    """What the pages one after the other show."""
    found: list[int] = []
    for _ in range(10_000):
        page = read_page(path, query, max_read_bytes)
        assert len(page.entries) <= query.limit
        found += targets(page.entries)
        if page.next_cursor is None:
            return found
        query = query._replace(cursor=page.next_cursor)
    raise AssertionError("the pages have no end")


def test_empty_trail_has_an_empty_page(path: Path) -> None:
    assert read_page(path, AuditQuery(10)) == ([], None, "00000000-0")
    path.touch()
    assert read_page(path, AuditQuery(10)) == ([], None, "00000000-0")


def test_newest_entries_come_first(path: Path) -> None:
    write(path, numbered(5))
    page = read_page(path, AuditQuery(10))
    assert (targets(page.entries), page.next_cursor) == ([4, 3, 2, 1, 0], None)
    assert page.entries[0] == recorded(4.0, target="4", detail="d" * 120)


@pytest.mark.parametrize("limit", [1, 3, 7, 1000])
@pytest.mark.parametrize("max_read_bytes", [1, 5_000, 10**9])
def test_pages_go_through_all_files_once(path: Path, limit: int, max_read_bytes: int) -> None:
    write(path, numbered(500), max_bytes=30_000)
    assert sum(one.exists() for one in files_of(path)) > 3
    assert all_pages(path, AuditQuery(limit), max_read_bytes) == list(range(499, -1, -1))


def test_line_across_two_blocks_is_read(path: Path) -> None:
    write(path, numbered(2000))
    assert path.stat().st_size > 4 * 64 * 1024
    assert all_pages(path, AuditQuery(1000)) == list(range(1999, -1, -1))


def test_last_page_has_no_next_cursor(path: Path) -> None:
    write(path, numbered(4))
    page = read_page(path, AuditQuery(2))
    assert page.next_cursor is not None
    assert read_page(path, AuditQuery(2, cursor=page.next_cursor)).next_cursor is None


def test_cursor_survives_rotation(path: Path) -> None:
    write(path, numbered(100), max_bytes=20_000)
    page = read_page(path, AuditQuery(10))
    write(path, numbered(100, first=100), max_bytes=20_000)
    assert all_pages(path, AuditQuery(10, cursor=page.next_cursor)) == list(range(89, -1, -1))


def test_cursor_into_a_removed_file_is_refused(path: Path) -> None:
    write(path, numbered(20))
    cursor = read_page(path, AuditQuery(1)).next_cursor
    write(path, numbered(5000, first=100), max_bytes=20_000)
    assert len([one for one in files_of(path) if one.exists()]) == 1 + KEPT_FILES
    with pytest.raises(InvalidCursor):
        read_page(path, AuditQuery(1, cursor=cursor))


@pytest.mark.parametrize("cursor", ["", "x", "00000000-0", "0-0", "-1", "../../etc", "a" * 500])
def test_unknown_cursor_is_refused(path: Path, cursor: str) -> None:
    write(path, numbered(5))
    with pytest.raises(InvalidCursor):
        read_page(path, AuditQuery(1, cursor=cursor))


def test_filters(path: Path) -> None:
    lines = [
        line_of(1.0, entry(target="1")),
        line_of(2.0, entry(target="2", actor="ops", action="drain_worker")),
        line_of(3.0, refusal(target="3")),
        line_of(4.0, entry(target="4", detail='"actor":"ops",')),
        line_of(5.0, entry(target="5", actor="op")),
    ]
    write(path, lines)
    assert all_pages(path, AuditQuery(1, actor="ops")) == [2]
    assert all_pages(path, AuditQuery(1, action="submit_task")) == [5, 4, 3, 1]
    assert all_pages(path, AuditQuery(1, outcome=AuditOutcome.REFUSED)) == [3]
    assert all_pages(path, AuditQuery(1, actor="ci", outcome=AuditOutcome.OK)) == [4, 1]
    assert all_pages(path, AuditQuery(9, since=3.0)) == [5, 4, 3]
    assert all_pages(path, AuditQuery(9, since=2.0, actor="ops")) == [2]


def test_reading_stops_at_entries_before_since(path: Path) -> None:
    write(path, numbered(2000))
    page = read_page(path, AuditQuery(1000, since=1990.0), max_read_bytes=100_000)
    assert (targets(page.entries), page.next_cursor) == (list(range(1999, 1989, -1)), None)


def test_clock_that_went_back_hides_no_entry(path: Path) -> None:
    write(path, [line_of(time, entry(target=str(int(time)))) for time in (100.0, 130.0, 95.0, 131.0)])
    assert all_pages(path, AuditQuery(9, since=100.0)) == [131, 130, 100]


def test_torn_and_foreign_lines_are_skipped(path: Path) -> None:
    one, two, three = numbered(3)
    path.write_bytes(one + two[:40] + b"\n" + b"\xff" * 300_000 + b"\n\n[]\n" + two + three[:-30])
    assert all_pages(path, AuditQuery(1)) == [1, 0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 70_000), max_size=12), st.integers(1, 5), st.sampled_from([1, 50_000, 10**9]))
def test_no_line_is_lost_at_block_boundaries(path: Path, lengths: list[int], limit: int, most: int) -> None:
    path.write_bytes(
        b"".join(line_of(0.0, entry(target=str(n))) + b"#" * length + b"\n" for n, length in enumerate(lengths))
    )
    assert all_pages(path, AuditQuery(limit), most) == list(reversed(range(len(lengths))))


# What came since


def since(path: Path, query: AuditQuery, max_read_bytes: int = 10**9) -> tuple[list[int], str]:
    """What the pages of what was written since show, to the end; and where to go on."""
    found: list[int] = []
    for _ in range(10_000):
        page = read_page(path, query, max_read_bytes)
        assert len(page.entries) <= query.limit
        assert page.next_cursor is None
        assert page.newest is not None
        found += targets(page.entries)
        if page.newest == query.after:
            return found, page.newest
        query = query._replace(after=page.newest)
    raise AssertionError("the pages have no end")


@pytest.mark.parametrize("limit", [1, 7, 1000])
@pytest.mark.parametrize("max_read_bytes", [1, 5_000, 10**9])
def test_pages_with_after_return_every_entry_once(path: Path, limit: int, max_read_bytes: int) -> None:
    place = read_page(path, AuditQuery(limit)).newest
    first = 0
    for count in (1, 0, 40, 2, 300, 57):
        write(path, numbered(count, first), max_bytes=30_000)
        found, place = since(path, AuditQuery(limit, after=place), max_read_bytes)
        assert found == list(range(first, first + count))
        first += count
    assert sum(one.exists() for one in files_of(path)) > 2


def test_page_names_the_place_where_newer_entries_begin(path: Path) -> None:
    write(path, numbered(5))
    page = read_page(path, AuditQuery(2))
    write(path, numbered(3, first=5))
    assert since(path, AuditQuery(2, after=page.newest))[0] == [5, 6, 7]
    assert read_page(path, AuditQuery(2, cursor=page.next_cursor)).newest is None


def test_incomplete_line_is_returned_once_complete(path: Path) -> None:
    one, two, three = numbered(3)
    path.write_bytes(one + two[:40])
    page = read_page(path, AuditQuery(9))
    assert targets(page.entries) == [0]
    found, place = since(path, AuditQuery(9, after=page.newest))
    assert found == []
    path.write_bytes(one + two + three[:10])
    found, place = since(path, AuditQuery(9, after=place))
    assert found == [1]
    path.write_bytes(one + two + three)
    assert since(path, AuditQuery(9, after=place))[0] == [2]


def test_foreign_lines_are_skipped_forward(path: Path) -> None:
    one, two, three = numbered(3)
    path.write_bytes(one + two[:40] + b"\n" + b"\xff" * 300_000 + b"\n\n[]\n" + two + three)
    begin = AuditQuery(1, after="00000000-0")
    assert since(path, begin)[0] == [0, 1, 2]


def test_filters_apply_with_after(path: Path) -> None:
    write(path, [line_of(float(n), entry(target=str(n), actor="ops" if n % 3 else "ci")) for n in range(9)])
    begin = AuditQuery(2, after="00000000-0", actor="ci")
    assert since(path, begin)[0] == [0, 3, 6]
    assert since(path, begin._replace(since=3.0))[0] == [3, 6]


def test_after_in_a_removed_file_is_refused(path: Path) -> None:
    write(path, numbered(20))
    place = read_page(path, AuditQuery(1)).newest
    write(path, numbered(5000, first=100), max_bytes=20_000)
    with pytest.raises(InvalidCursor):
        read_page(path, AuditQuery(1, after=place))
