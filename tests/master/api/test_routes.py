"""The table of routes, docs/rest.md and the app agree."""

import re
from pathlib import Path
from typing import Any

import falcon
import pytest
from falcon.inspect import inspect_app

from fleetpulse.master.access.tokens import Role
from fleetpulse.master.api.operations import PATH_FIELDS, Operation, Route, add_routes, answer
from fleetpulse.master.api.routes import ROUTES
from tests.master.web import Web

PAGE = Path(__file__).resolve().parents[3] / "docs" / "rest.md"


def paths_told(page: str) -> list[tuple[str, str]]:
    """Method and path of every row of the page's first table."""
    table = page.partition("| Path | Answer |")[2].partition("\n\n")[0]
    return [(row[1], row[2]) for row in re.finditer(r"^\| `([A-Z]+) (/[^`]*)` \|", table, re.MULTILINE)]


def test_rest_md_lists_exactly_the_table() -> None:
    told = paths_told(PAGE.read_text(encoding="utf-8"))
    served = [(operation.method, route.path) for route in ROUTES for operation in route.operations]
    assert sorted(told) == sorted(served)


def test_path_fields_are_described_and_used() -> None:
    used = {name for route in ROUTES for name in re.findall(r"\{(\w+)\}", route.path)}
    assert used == set(PATH_FIELDS)


def test_paths_are_unique() -> None:
    paths = [route.path for route in ROUTES]
    assert sorted(set(paths)) == sorted(paths)


class Looked:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None: ...

    on_head = on_get


def route(path: str) -> Route:
    return Route(path, "Master", Operation("GET", "look", Role.READ, "a look", answer(str, "it")))


def served_by(app: "falcon.App[Any, Any]") -> dict[str, set[str]]:
    """The methods of every path, without those that Falcon itself answers."""
    return {
        route.path: {method.method for method in route.methods if not method.internal}
        for route in inspect_app(app).routes
    }


def test_app_serves_exactly_the_table(web: Web) -> None:
    assert served_by(web.app) == {route.path: route.methods for route in ROUTES}
    everything = inspect_app(web.app)
    assert (list(everything.static_routes or ()), list(everything.sinks or ())) == ([], [])


def test_operation_names_are_unique() -> None:
    names = [operation.name for route in ROUTES for operation in route.operations]
    assert sorted(set(names)) == sorted(names)


OPEN = {"get_health", "get_page", "get_page_file", "get_session", "sign_in", "sign_out"}
"""What anybody may do: said twice, so that nothing becomes open by a slip of the pen."""


def test_open_operations_are_listed_here() -> None:
    operations = [operation for route in ROUTES for operation in route.operations]
    assert {operation.name for operation in operations if operation.role is Role.OPEN} == OPEN


def test_changing_operations_need_more_than_the_read_role() -> None:
    for row in ROUTES:
        for operation in row.operations:
            may_read_only = operation.role <= Role.READ and operation.name not in OPEN
            assert not (may_read_only and operation.method != "GET"), operation.name


def test_resource_without_a_route_is_refused() -> None:
    with pytest.raises(ValueError, match="/secret"):
        add_routes(falcon.App(), [route("/look")], {"/look": Looked(), "/secret": Looked()})


def test_route_without_a_resource_is_refused() -> None:
    with pytest.raises(ValueError, match="/gone"):
        add_routes(falcon.App(), [route("/look"), route("/gone")], {"/look": Looked()})


def test_method_without_an_operation_is_refused() -> None:
    class Both(Looked):
        def on_delete(self, req: falcon.Request, resp: falcon.Response) -> None: ...

    with pytest.raises(ValueError, match="DELETE"):
        add_routes(falcon.App(), [route("/look")], {"/look": Both()})


def test_get_without_head_is_refused() -> None:
    class Blind:
        def on_get(self, req: falcon.Request, resp: falcon.Response) -> None: ...

    with pytest.raises(ValueError, match="HEAD"):
        add_routes(falcon.App(), [route("/look")], {"/look": Blind()})
