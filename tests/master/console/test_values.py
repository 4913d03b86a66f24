"""master.console.values, tables, address, options: small things that are easily wrong"""

import click
import pytest

from fleetpulse.master.console import values
from fleetpulse.master.console.address import base_url
from fleetpulse.master.console.options import DURATION, MEMORY, choices, pairs
from fleetpulse.master.console.tables import Cell, Column, fitted, grid, plain_lines


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (values.percent(12.34), "12.3%"),
        (values.percent(0), "0.0%"),
        (values.percent(None), "-"),
        (values.size(0), "0 B"),
        (values.size(1536), "1.5 KiB"),
        (values.size(500 * 2**30), "500 GiB"),
        (values.size(None), "-"),
        (values.number(1_234_567), "1234567"),
        (values.number(38.7136), "38.71"),
        (values.number(2.0), "2"),
        (values.number(None), "-"),
        (values.duration(59), "59s"),
        (values.duration(150), "2m"),
        (values.duration(90_000), "25h"),
        (values.duration(200_000), "2d"),
        (values.age(1000.0, 990.0), "0s"),
        (values.labels({"zone": "a", "gpu": ["x", "y"]}), "zone=a,gpu=x|y"),
        (values.labels({}), "-"),
        (values.sparkline([0, 50, 100, None]), "▁▅█ "),
    ],
)
def test_values_as_people_write_them(shown: str, text: str) -> None:
    assert shown == text


COLUMNS = (Column("ID"), Column("CPU", right=True, spare=1), Column("ALL", wide=True, spare=3), Column("WHY", spare=2))
ROWS: list[list[Cell | str]] = [["a", "1%", "x", "long enough to be cut"], [Cell("bb\x1b[31m", "red"), "100%", "y", ""]]


def test_a_table_in_a_pipe_is_aligned_and_not_cut() -> None:
    assert plain_lines(grid(COLUMNS, ROWS, wide=False)) == [
        "ID   CPU  WHY",
        "a     1%  long enough to be cut",
        "bb  100%  -",
    ]


def test_a_wide_table_has_all_columns() -> None:
    assert plain_lines(grid(COLUMNS, ROWS, wide=True))[0].split() == ["ID", "CPU", "ALL", "WHY"]


@pytest.mark.parametrize(
    ("width", "titles"), [(100, ["ID", "CPU", "WHY"]), (22, ["ID", "CPU", "WHY"]), (12, ["ID", "CPU"]), (3, ["ID"])]
)
def test_columns_go_where_there_is_no_room(width: int, titles: list[str]) -> None:
    assert [column.title for column in fitted(grid(COLUMNS, ROWS, wide=False), width).columns] == titles


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://host:1", "http://host:1"),
        ("https://host/", "https://host"),
        ("http://host/behind/", "http://host/behind"),
        ("host", "http://host:8080"),
        ("host:99", "http://host:99"),
        (":99", "http://localhost:99"),
        ("[::1]:99", "http://[::1]:99"),
    ],
)
def test_an_address_as_people_write_it(given: str, url: str) -> None:
    assert base_url(given) == url


@pytest.mark.parametrize(
    "given", ["", "http://", "ftp://host", "host:port", "http://h:99999", "a b", "http://h?x", "\x1b"]
)
def test_what_is_no_address_is_wrong_usage(given: str) -> None:
    with pytest.raises(click.UsageError, match="FLEETPULSE_URL"):
        base_url(given)


def test_pairs_and_choices() -> None:
    assert pairs("--label", ["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    assert choices("--constraint", ["a=1", "a=2", "b=3"]) == {"a": ["1", "2"], "b": ["3"]}
    with pytest.raises(click.UsageError, match="NAME=VALUE"):
        pairs("--label", ["nothing"])


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        (DURATION, "90", 90),
        (DURATION, "1.5h", 5400),
        (MEMORY, "512", 512),
        (MEMORY, "2G", 2048),
        (MEMORY, "512MiB", 512),
    ],
)
def test_amounts_with_units(kind: "click.ParamType[float]", given: str, value: float) -> None:
    assert kind.convert(given, None, None) == value
    with pytest.raises(click.BadParameter, match="expected"):
        kind.convert("soon", None, None)
