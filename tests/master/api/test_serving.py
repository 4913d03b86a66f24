"""The table of routes and the app agree."""

from typing import Any

import falcon
import pytest
from falcon.inspect import inspect_app

from fleetpulse.master.access.tokens import Role
from fleetpulse.master.api.operations import Operation, Route, answer
from fleetpulse.master.api.routes import ROUTES
from fleetpulse.master.api.serving import methods_of, serve
from tests.master.web import Web


class Looked:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None: ...

    on_head = on_get


def route(path: str) -> Route:
    return Route(path, "Master", (Operation("GET", "look", "a look", Role.READ, (answer(str, "it"),)),))


def served_by(app: "falcon.App[Any, Any]") -> dict[str, set[str]]:
    """The methods of every path, without those that Falcon itself answers."""
    return {
        route.path: {method.method for method in route.methods if not method.internal}
        for route in inspect_app(app).routes
    }


def test_the_app_serves_the_table_and_nothing_else(web: Web) -> None:
    assert served_by(web.app) == {route.path: methods_of(route) for route in ROUTES}
    everything = inspect_app(web.app)
    assert (list(everything.static_routes or ()), list(everything.sinks or ())) == ([], [])


def test_no_two_operations_have_one_name() -> None:
    names = [operation.name for route in ROUTES for operation in route.operations]
    assert sorted(set(names)) == sorted(names)


OPEN = {"get_health", "get_page", "get_page_file", "get_session", "sign_in", "sign_out"}
"""What anybody may do: said twice, so that nothing becomes open by a slip of the pen."""


def test_what_anybody_may_do() -> None:
    operations = [operation for route in ROUTES for operation in route.operations]
    assert {operation.name for operation in operations if operation.role is Role.OPEN} == OPEN


def test_what_changes_something_is_for_more_than_reading() -> None:
    for row in ROUTES:
        for operation in row.operations:
            may_read_only = operation.role <= Role.READ and operation.name not in OPEN
            assert not (may_read_only and operation.method != "GET"), operation.name


def test_a_path_without_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="/secret"):
        serve(falcon.App(), [route("/look")], {"/look": Looked(), "/secret": Looked()})


def test_a_row_without_a_resource_is_refused() -> None:
    with pytest.raises(ValueError, match="/gone"):
        serve(falcon.App(), [route("/look"), route("/gone")], {"/look": Looked()})


def test_a_method_without_a_row_is_refused() -> None:
    class Both(Looked):
        def on_delete(self, req: falcon.Request, resp: falcon.Response) -> None: ...

    with pytest.raises(ValueError, match="DELETE"):
        serve(falcon.App(), [route("/look")], {"/look": Both()})


def test_a_get_without_a_head_is_refused() -> None:
    class Blind:
        def on_get(self, req: falcon.Request, resp: falcon.Response) -> None: ...

    with pytest.raises(ValueError, match="HEAD"):
        serve(falcon.App(), [route("/look")], {"/look": Blind()})
