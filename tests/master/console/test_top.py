"""master.console.top: what is shown, in which order, and the keys"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.widgets import DataTable, Static

from fleetpulse.master.console.feed import Fleet
from fleetpulse.master.console.top_app import TopApp
from fleetpulse.master.console.top_rows import COLUMNS, MOST_ROWS, Past, View, chosen, headline, row, shown_columns
from tests.master.console.conftest import Run
from tests.master.console.fake_master import FakeMaster
from tests.master.console.given import worker


def short(worker_id: str, cpu: float | None, **fields: Any) -> dict[str, Any]:
    return {"worker_id": worker_id, "is_active": True, "cpu_usage": cpu, "memory_usage": 1.0, **fields}


FLEET: Fleet = {
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
def test_order_and_filter(view: View, order: list[str]) -> None:
    assert [worker_id for worker_id, _ in chosen(FLEET, view)] == order


def test_the_past_is_bounded_and_forgets_who_left() -> None:
    past = Past()
    for reading in (0.0, 50.0, 100.0):
        past.note({"a": short("a", reading)})
    assert past.sparklines("a")[0].strip() == "▁▅█"
    past.note({})
    assert past.sparklines("a")[0].strip() == ""


def test_a_row_is_clean_and_has_what_is_missing_as_a_dash() -> None:
    cells = row("evil\x1b[2J", {"is_active": True}, Past(), 0.0)
    assert [cell.text for cell in cells if cell.text.strip()] == ["evil", "active", *["-"] * 7]


@pytest.mark.parametrize(("width", "count"), [(200, len(COLUMNS)), (40, 4), (10, 3)])
def test_columns_for_a_width(width: int, count: int) -> None:
    assert len(shown_columns(width, 6)) == count


def test_the_fleet_in_a_line() -> None:
    told = headline(FLEET, View("cpu", is_reversed=True, filter="x"), 1, 3)
    assert told == "2 active, 1 draining, 1 inactive; by cpu reversed, filter 'x': 3, the first 1"


Script = Callable[[TopApp, Any], Awaitable[None]]


def driven(script: Script, fleet: Fleet = FLEET, size: tuple[int, int] = (120, 20)) -> TopApp:
    """Run the application without a terminal, with somebody who presses keys."""

    async def drive() -> TopApp:
        app = TopApp(View(), lambda: 0.0)
        app.heard(fleet)
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


def test_ctrl_c_ends_as_everywhere() -> None:
    async def script(app: TopApp, pilot: Any) -> None:
        await pilot.press("ctrl+c")

    assert driven(script).return_value == 130


def test_news_and_trouble_are_shown() -> None:
    async def script(app: TopApp, pilot: Any) -> None:
        app.heard({"w-2": short("w-2", 1.0), "w-1": short("w-1", 99.0)})
        app.troubled("cannot reach\x1b[2J it")
        app._tick()
        await pilot.pause()
        assert shown(app) == ["w-1", "w-2"]
        assert str(app.query_one("#trouble", Static).render()) == "cannot reach it"
        app.heard({"w-2": short("w-2", 1.0), "w-1": short("w-1", 98.0)})
        app._tick()
        await pilot.pause()
        assert "98.0%" in str(app.query_one(DataTable).get_row_at(0))
        assert not app.query_one("#trouble").display

    driven(script)


def test_a_narrow_terminal_and_a_large_fleet() -> None:
    large: Fleet = {f"w-{number}": short(f"w-{number}", float(number % 100)) for number in range(MOST_ROWS + 50)}

    async def script(app: TopApp, pilot: Any) -> None:
        await pilot.pause()
        table = app.query_one(DataTable)
        assert table.row_count == MOST_ROWS
        assert [str(column.label) for column in table.ordered_columns] == ["WORKER", "STATE", "CPU", "MEM"]
        assert f"the first {MOST_ROWS}" in str(app.query_one("#headline", Static).render())

    driven(script, large, (40, 12))


def test_once_is_a_table_and_json_is_what_rest_answers(run: Run, master: FakeMaster) -> None:
    fleet = [worker("w-1", cpu=1.0), worker("w-2", cpu=99.0)]
    master.get("/api/workers", fleet)
    lines = run("top", "--once").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["WORKER", "w-2", "w-1"]
    assert run("top", "--filter", "w-1").stdout.split() == [*lines[0].split(), *lines[2].split()]
    assert json.loads(run("top", "--json").stdout) == fleet
