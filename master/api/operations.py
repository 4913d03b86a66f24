"""What can be said of a path: its methods, what they take, what they answer. ``master.api.routes`` says it of each."""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel

from fleetpulse.master.access.tokens import Role
from fleetpulse.master.api.queries import TASK_ID_PATTERN, WORKER_ID_PATTERN

JSON = "application/json"
TEXT = "text/plain"
EVENTS = "text/event-stream"
HTML = "text/html"

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
"""``HEAD`` goes without saying: every path that takes ``GET`` takes it too."""

Tag = Literal["Master", "Workers", "Tasks", "Prometheus", "Page"]

EVERYWHERE = (400, 401, 403, 408, 414, 421, 429, 431, 500, 503)
"""Statuses of the problems that any request may come to; some of them before the app sees it (``master.edge``)."""


class PathField(NamedTuple):
    """What one field of a path may be. What does not match is a 404."""

    text: str
    pattern: str


PATH_FIELDS: Mapping[str, PathField] = MappingProxyType(
    {
        "worker_id": PathField("the id of a worker", WORKER_ID_PATTERN),
        "task_id": PathField("as the master gave it when the task was submitted", TASK_ID_PATTERN),
        "page_version": PathField("as the page at `/` names it", r"[0-9a-f]{12}"),
        "page_file": PathField("a file that the page is made of", r"[a-z-]+\.(js|css|svg)"),
    }
)
"""Of every field that a path has."""

_NONE: Mapping[str, str] = MappingProxyType({})


class Answer(NamedTuple):
    """One way in which a request that is in order is answered."""

    status: int
    text: str
    content: Mapping[str, Any] = MappingProxyType({})
    """By media type, the type of the answer as pydantic understands types; empty: it has no body."""

    headers: Mapping[str, str] = _NONE
    """What the headers that belong to this answer say."""


class Body(NamedTuple):
    """What a request's body may be."""

    model: type[BaseModel]
    is_required: bool = True
    media_type: str = JSON
    example: Any = None


class Header(NamedTuple):
    """A header of a request that changes its answer."""

    name: str
    text: str
    pattern: str | None = None


class Operation(NamedTuple):
    """One method of a path."""

    method: Method
    name: str
    """As client libraries call it; no two are the same."""

    summary: str
    role: Role
    answers: tuple[Answer, ...]
    problems: tuple[int, ...] = ()
    """Statuses of the problems that this may come to, without those that any request may: see ``EVERYWHERE``."""

    text: str = ""
    query: type[BaseModel] | None = None
    """``None``: the path looks at no query."""

    body: Body | None = None
    headers: tuple[Header, ...] = ()


class Route(NamedTuple):
    """One path. ``path`` is a template as Falcon has them, with fields of ``PATH_FIELDS``."""

    path: str
    tag: Tag
    operations: tuple[Operation, ...]


def answer(kind: Any, text: str, status: int = HTTPStatus.OK, **headers: str) -> Answer:
    """An answer in JSON. Names of headers with '_' for '-'."""
    return Answer(status, text, {JSON: kind}, {name.replace("_", "-"): says for name, says in headers.items()})
