"""master.api.routes and docs/rest.md tell of the same paths."""

import re
from pathlib import Path

from fleetpulse.master.api.operations import PATH_FIELDS
from fleetpulse.master.api.routes import ROUTES

PAGE = Path(__file__).resolve().parents[3] / "docs" / "rest.md"


def paths_told(page: str) -> list[tuple[str, str]]:
    """Method and path of every row of the page's first table."""
    table = page.partition("| Path | Answer |")[2].partition("\n\n")[0]
    return [(row[1], row[2]) for row in re.finditer(r"^\| `([A-Z]+) (/[^`]*)` \|", table, re.MULTILINE)]


def test_the_rest_page_lists_the_table_and_nothing_else() -> None:
    told = paths_told(PAGE.read_text(encoding="utf-8"))
    served = [(operation.method, route.path) for route in ROUTES for operation in route.operations]
    assert sorted(told) == sorted(served)


def test_every_field_of_a_path_is_told_and_used() -> None:
    used = {name for route in ROUTES for name in re.findall(r"\{(\w+)\}", route.path)}
    assert used == set(PATH_FIELDS)


def test_no_path_is_there_twice() -> None:
    paths = [route.path for route in ROUTES]
    assert sorted(set(paths)) == sorted(paths)
