"""master.console.top and top_app: order, filter, columns and keys"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.widgets import DataTable, Static

from fleetpulse.master.console.screen import Table
from fleetpulse.master.console.stream import FleetSnapshot
from fleetpulse.master.console.top import (
    MAX_ROWS,
    ReadingHistory,
    View,
    headline,
    select_workers,
    sparkline,
    table_columns,
)
from fleetpulse.master.console.top_app import TopApp
from tests.master.console.conftest import Run
from tests.master.console.fake_master import FakeMaster
from tests.master.console.records import worker


def short(worker_id: str, cpu: float | None, **fields: Any) -> dict[str, Any]:
    return {"worker_id": worker_id, "is_active": True, "cpu_usage": cpu, "memory_usage": 1.0, **fields}


COLUMNS = table_columns(ReadingHistory(), lambda: 0.0)
FLEET: FleetSnapshot = {
    "w-10": short("w-10", 5.0),
    "w-2": short("w-2", 95.0, running_tasks_count=1),
    "w-1": short("w-1", 99.0, is_active=False),
    "w-3": short("w-3", 50.0, draining=True, hostname="rack-7", running_tasks_count=9),
}


@pytest.mark.parametrize(
    ("view", "order"),
    [
        (View(), ["w-2", "w-3", "w-10", "w-1"]),
        (View(is_reversed=True), ["w-10", "w-3", "w-2", "w-1"]),
        (View("name"), ["w-1", "w-2", "w-3", "w-10"]),
        (View("name", is_reversed=True), ["w-10", "w-3", "w-2", "w-1"]),
        (View("state"), ["w-1", "w-3", "w-2", "w-10"]),
        (View("tasks"), ["w-3", "w-2", "w-1", "w-10"]),
        (View(filter="RACK"), ["w-3"]),
        (View(filter="inactive"), ["w-1"]),
    ],
)
def test_workers_are_sorted_and_filtered(view: View, order: list[str]) -> None:
    assert [worker_id for worker_id, _ in select_workers(FLEET, view)] == order


def test_reading_history_forgets_workers_that_left() -> None:
    history = ReadingHistory()
    for reading in (0.0, 50.0, 100.0):
        history.add({"a": short("a", reading)})
    assert history.sparkline("a", "cpu_usage").strip() == "▁▅█"
    history.add({})
    assert history.sparkline("a", "cpu_usage").strip() == ""


def test_sparkline_has_a_space_for_a_gap() -> None:
    assert sparkline([0, 50, 100, None]) == "▁▅█ "


def test_row_is_safe_and_shows_missing_values_as_dashes() -> None:
    (cells,) = Table.of(COLUMNS, [("evil\x1b[2J", {"is_active": True})]).rows
    assert [cell.text for cell in cells] == ["evil", "active", *["-"] * 9]


@pytest.mark.parametrize(("width", "count"), [(200, len(COLUMNS)), (40, 4), (10, 3)])
def test_columns_fit_the_width(width: int, count: int) -> None:
    assert len(Table.of(COLUMNS, [("w-1000", FLEET["w-2"])]).fitted(width - 2).columns) == count


def test_headline() -> None:
    message = headline(FLEET, View("cpu", is_reversed=True, filter="x"), 1, 3)
    assert message == "2 active, 1 draining, 1 inactive; by cpu reversed, filter 'x': 3, the first 1"


Script = Callable[[TopApp, Any], Awaitable[None]]


def driven(script: Script, fleet: FleetSnapshot = FLEET, size: tuple[int, int] = (120, 20)) -> TopApp:
    """Runs the application without a terminal; ``script`` presses the keys."""

    async def drive() -> TopApp:
        app = TopApp(View(), lambda: 0.0)
        app.show_fleet(fleet)
        async with app.run_test(size=size) as pilot:
            await script(app, pilot)
        return app

    return asyncio.run(drive())


def shown(app: TopApp) -> list[str]:
    table = app.query_one(DataTable)
    return [str(table.get_row_at(index)[0]) for index in range(table.row_count)]


def test_keys_sort_filter_and_quit() -> None:
    async def script(app: TopApp, pilot: Any) -> None:
        await pilot.pause()
        assert shown(app) == ["w-2", "w-3", "w-10", "w-1"]
        await pilot.press("n")
        assert shown(app) == ["w-1", "w-2", "w-3", "w-10"]
        await pilot.press("n")
        assert shown(app) == ["w-10", "w-3", "w-2", "w-1"]
        await pilot.press("slash", "r", "a", "c", "k")
        await pilot.pause()
        assert shown(app) == ["w-3"]
        await pilot.press("escape")
        await pilot.pause()
        assert len(shown(app)) == 4
        await pilot.press("q")

    assert driven(script).return_value == 0


def test_ctrl_c_exits_with_130() -> None:
    async def script(app: TopApp, pilot: Any) -> None:
        await pilot.press("ctrl+c")

    assert driven(script).return_value == 130


def test_new_fleets_and_errors_are_shown() -> None:
    async def script(app: TopApp, pilot: Any) -> None:
        app.show_fleet({"w-2": short("w-2", 1.0), "w-1": short("w-1", 99.0)})
        app.show_error("cannot reach\x1b[2J it")
        app.tick()
        await pilot.pause()
        assert shown(app) == ["w-1", "w-2"]
        assert str(app.query_one("#error", Static).render()) == "cannot reach it"
        app.show_fleet({"w-2": short("w-2", 1.0), "w-1": short("w-1", 98.0)})
        app.tick()
        await pilot.pause()
        assert "98.0%" in str(app.query_one(DataTable).get_row_at(0))
        assert not app.query_one("#error").display

    driven(script)


def test_narrow_terminal_and_large_fleet() -> None:
    large: FleetSnapshot = {f"w-{number}": short(f"w-{number}", float(number % 100)) for number in range(MAX_ROWS + 50)}

    async def script(app: TopApp, pilot: Any) -> None:
        await pilot.pause()
        table = app.query_one(DataTable)
        assert table.row_count == MAX_ROWS
        assert [str(column.label) for column in table.ordered_columns] == ["WORKER", "STATE", "CPU", "MEM"]
        assert f"the first {MAX_ROWS}" in str(app.query_one("#headline", Static).render())

    driven(script, large, (40, 12))


def test_once_prints_a_table_and_json_is_the_rest_answer(run: Run, master: FakeMaster) -> None:
    fleet = [worker("w-1", cpu=1.0), worker("w-2", cpu=99.0)]
    master.get("/api/workers", fleet)
    lines = run("top", "--once").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["WORKER", "w-2", "w-1"]
    assert run("top", "--filter", "w-1").stdout.split() == [*lines[0].split(), *lines[2].split()]
    assert json.loads(run("top", "--json").stdout) == fleet
