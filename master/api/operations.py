"""The types of the table of routes (``master.api.routes``): a path, its methods, what they take and answer."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import falcon
from pydantic import BaseModel

from fleetpulse.master.access.tokens import Role
from fleetpulse.proto.rules import TASK_ID_PATTERN, WORKER_ID_PATTERN

JSON = "application/json"
TEXT = "text/plain"
EVENTS = "text/event-stream"
HTML = "text/html"

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
"""Every path that takes ``GET`` takes ``HEAD`` too."""

Tag = Literal["Master", "Workers", "Tasks", "Prometheus", "Page"]

EVERYWHERE = (400, 401, 403, 408, 414, 421, 429, 431, 500, 503)
"""Statuses of the problems of any request; some of them before the app sees it (``master.edge``)."""


class PathField(NamedTuple):
    """A field of a path. A value that does not match is a 404."""

    text: str
    pattern: str


PATH_FIELDS: Mapping[str, PathField] = {
    "worker_id": PathField("the id of a worker", WORKER_ID_PATTERN),
    "task_id": PathField("as the master gave it when the task was submitted", TASK_ID_PATTERN),
    "page_version": PathField("as the page at `/` names it", r"[0-9a-f]{12}"),
    "page_file": PathField("a file that the page is made of", r"[a-z-]+\.(js|css|svg)"),
}

_NONE: Mapping[str, Any] = MappingProxyType({})


class Answer(NamedTuple):
    """One answer to a valid request."""

    status: int
    text: str
    content: Mapping[str, Any] = _NONE
    """By media type, the type of the answer; empty: it has no body."""
    headers: Mapping[str, str] = _NONE
    """The meaning of each header of the answer."""


class Body(NamedTuple):
    """The body of a request."""

    model: type[BaseModel]
    is_required: bool = True
    example: Any = None


class Header(NamedTuple):
    """A header of a request that changes its answer."""

    name: str
    text: str
    pattern: str | None = None


class Operation:
    """One method of a path. ``role`` is the least that may call it."""

    def __init__(  # noqa: PLR0913 - a row of the table says everything about an operation
        self,
        method: Method,
        name: str,
        role: Role,
        summary: str,
        *answers: Answer,
        problems: tuple[int, ...] = (),
        text: str = "",
        query: type[BaseModel] | None = None,
        body: Body | None = None,
        headers: tuple[Header, ...] = (),
    ) -> None:
        """``name`` is unique: client libraries call their functions so. ``problems`` are the statuses of its problems,
        without those of ``EVERYWHERE``. Without ``query`` the query is ignored.
        """
        self.method, self.name, self.role, self.summary, self.text = method, name, role, summary, text
        self.answers, self.problems = answers, problems
        self.query, self.body, self.headers = query, body, headers


class Route:
    """One path. ``path`` is a template as Falcon has them, with fields of ``PATH_FIELDS``."""

    def __init__(self, path: str, tag: Tag, *operations: Operation) -> None:
        self.path, self.tag, self.operations = path, tag, operations

    @property
    def methods(self) -> set[str]:
        """The methods that the path takes, ``HEAD`` among them."""
        taken: set[str] = {operation.method for operation in self.operations}
        return taken | {"HEAD"} if "GET" in taken else taken


def answer(kind: Any, text: str, status: int = HTTPStatus.OK, **headers: str) -> Answer:
    """An answer in JSON. Names of headers with '_' for '-'."""
    return Answer(status, text, {JSON: kind}, {name.replace("_", "-"): text for name, text in headers.items()})


def add_routes(app: "falcon.App[Any, Any]", routes: Sequence[Route], resources: Mapping[str, object]) -> None:
    """Adds every route of the table to the app. ``resources`` are by path.

    Raises ``ValueError`` for a resource without a route, a route without a resource, and a resource whose methods are
    not those of its route.
    """
    paths = {route.path for route in routes}
    if paths != resources.keys():
        raise ValueError(f"in the table or among the resources, but not in both: {paths ^ resources.keys()}")
    for route in routes:
        resource = resources[route.path]
        taken = {method for method in falcon.HTTP_METHODS if hasattr(resource, f"on_{method.lower()}")}
        if route.methods != taken:
            raise ValueError(f"{route.path} takes {sorted(taken)}, and the table says {sorted(route.methods)}")
        app.add_route(route.path, resource)
