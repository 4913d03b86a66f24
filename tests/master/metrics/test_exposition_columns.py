"""master.metrics.exposition: its columns"""

import random

import pytest

from fleetpulse.master.metrics.exposition import Columns, StaticColumns
from fleetpulse.master.telemetry.lazy_view import SteadyBytes


@pytest.fixture(params=[Columns, StaticColumns])
def columns(request: pytest.FixtureRequest) -> Columns:
    made: Columns = request.param(2)
    return made


def texts(columns: Columns) -> list[bytes]:
    return [columns.join(0), columns.join(1)]


def test_columns_without_workers_are_empty(columns: Columns) -> None:
    assert texts(columns) == [b"", b""]


def test_lines_are_in_the_order_of_their_workers(columns: Columns) -> None:
    columns.put("a", [b"a0", b""])
    columns.put("b", [b"b0", b"b1"])
    assert texts(columns) == [b"a0b0", b"b1"]
    columns.put("a", [b"A0", b"A1"])
    assert texts(columns) == [b"A0b0", b"A1b1"]


def test_text_of_a_static_column_is_the_same_object_until_a_line_changes() -> None:
    columns = StaticColumns(1)
    columns.put("a", [b"a"])
    first = columns.join(0)
    columns.put("a", [b"a"])
    assert isinstance(first, SteadyBytes)
    assert columns.join(0) is first
    columns.put("a", [b"A"])
    assert columns.join(0) == b"A"


def test_place_of_a_removed_worker_is_reused(columns: Columns) -> None:
    for worker_id in ("a", "b", "c"):
        columns.put(worker_id, [worker_id.encode(), b"-"])
    columns.remove("b")
    columns.remove("stranger")
    assert texts(columns) == [b"ac", b"--"]
    columns.put("d", [b"d", b"+"])
    columns.put("e", [b"e", b"!"])
    assert texts(columns) == [b"adce", b"-+-!"]
    for worker_id in ("a", "c", "d", "e"):
        columns.remove(worker_id)
    assert texts(columns) == [b"", b""]


def test_row_must_have_a_line_for_every_column(columns: Columns) -> None:
    with pytest.raises(ValueError, match="zip"):
        columns.put("a", [b"a0"])


def test_unchanged_text_is_not_joined_again() -> None:
    columns = StaticColumns(2)
    columns.put("a", [b"a0", b"a1"])
    before = texts(columns)
    columns.put("a", [b"a0", b"A1"])
    after = texts(columns)
    assert after == [b"a0", b"A1"]
    assert after[0] is before[0]


@pytest.mark.parametrize("seed", range(5))
def test_static_columns_equal_plain_columns(seed: int) -> None:
    chance = random.Random(seed)
    plain, steady = Columns(2), StaticColumns(2)
    names = [f"worker-{number}" for number in range(8)]
    for _ in range(500):
        name, deed = chance.choice(names), chance.random()
        if deed < 0.2:
            assert texts(steady) == texts(plain)
        for columns in (plain, steady):
            if deed < 0.4:
                columns.remove(name)
            else:
                columns.put(name, [b"x" * int(deed * 7), b"y" if deed < 0.7 else b""])
    assert texts(steady) == texts(plain)
