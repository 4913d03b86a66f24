"""master.console.screen: tables in a pipe and on a terminal"""

from operator import itemgetter

import pytest

from fleetpulse.master.console.screen import Cell, Column, Table, field

COLUMNS = (
    Column("ID", itemgetter(0)),
    Column("CPU", itemgetter(1), right=True, spare=1),
    Column("ALL", itemgetter(2), wide=True, spare=3),
    Column("WHY", itemgetter(3), spare=2),
)
RECORDS = [["a", "1%", "x", "long enough to be cut"], [Cell("bb\x1b[31m", "red"), "100%", "y", ""]]


def test_table_in_a_pipe_is_aligned_and_not_cut() -> None:
    assert Table.of(COLUMNS, RECORDS).lines() == [
        "ID   CPU  WHY",
        "a     1%  long enough to be cut",
        "bb  100%  -",
    ]


def test_wide_table_has_all_columns() -> None:
    assert Table.of(COLUMNS, RECORDS, wide=True).lines()[0].split() == ["ID", "CPU", "ALL", "WHY"]


@pytest.mark.parametrize(
    ("width", "titles"), [(100, ["ID", "CPU", "WHY"]), (22, ["ID", "CPU", "WHY"]), (12, ["ID", "CPU"]), (3, ["ID"])]
)
def test_columns_are_left_out_on_a_narrow_terminal(width: int, titles: list[str]) -> None:
    assert [column.title for column in Table.of(COLUMNS, RECORDS).fitted(width).columns] == titles


@pytest.mark.parametrize(
    ("record", "text"),
    [({"a": {"b": 5}}, "5"), ({"a": {}}, "-"), ({"a": None}, "-"), ({}, "-"), ({"a": {"b": ""}}, "-")],
)
def test_field_reads_a_path_and_shows_a_dash_for_missing_parts(record: dict[str, object], text: str) -> None:
    assert field("a.b")(record).text == text
