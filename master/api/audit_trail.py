"""``/api/audit``: the audit trail, the newest first, in pages."""

import time
from collections.abc import Callable
from typing import Annotated, Protocol
from urllib.parse import urlencode

import falcon
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from fleetpulse.master.api.answers import Count, ResponseModel, Time
from fleetpulse.master.api.history_query import MomentText, moment
from fleetpulse.master.api.queries import MAX_PAGE, CursorText, Number, Once, PrintableText, query_of
from fleetpulse.master.audit.entry import AuditOutcome
from fleetpulse.master.audit.reader import AuditPage, AuditQuery


class AuditListQuery(BaseModel):
    """``GET /api/audit``."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)

    since: MomentText | None = None
    """Not older: Unix seconds, RFC 3339 with a time zone, or before now as `-90s`, `-15m`, `-1h`, `-7d`."""
    actor: PrintableText | None = None
    """Of this one alone: the name of a token, `worker:ID`, `user:NAME` or `anonymous`."""
    action: PrintableText | None = None
    """Only these: the name of an operation, or what a worker did."""
    outcome: Annotated[AuditOutcome | None, Once] = None
    """Only what ended so."""
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE), Number] = 100
    """How many at most."""
    cursor: CursorText | None = None
    """From the `Link` header of the page before."""
    after: CursorText | None = None
    """From the `Link` header of another page: only what was written since, the oldest first. Not with `cursor`."""

    @field_validator("after")
    @classmethod
    def _goes_one_way(cls, after: str | None, info: ValidationInfo) -> str | None:
        if after is not None and info.data.get("cursor") is not None:
            raise ValueError("must not be given with cursor")
        return after


class AuditItem(ResponseModel):
    """Somebody did, or tried to do, something."""

    time: Time
    actor: str
    """A token's name, `worker:ID`, `user:NAME` of the master's machine, `anonymous`; `master` of the trail itself."""
    role: str | None
    """What the actor may do; null of workers, users, and where nobody is known."""
    door: str
    """`rest`, `page` of a browser that signed in, `rpc`, `cli` of a command that changed a file; `master`."""
    client: str
    """The address of the connection's other end."""
    action: str
    """The name of an operation of this reference, or what a worker did; `connect` or `request` of what was
    refused before it came to one; `(none)` where there is no such thing."""
    target: str
    """A path, or an id."""
    outcome: AuditOutcome
    status: str
    """Of HTTP as `201`, of gRPC as `ALREADY_EXISTS`; empty where TLS did not begin."""
    detail: str
    repeated: Count
    """Not 0: it stands for so many that were refused alike within a second, after one that has its own entry."""


class AuditReader(Protocol):
    """``master.audit.trail`` as REST sees it."""

    def read(self, query: AuditQuery) -> AuditPage:
        """Wait for a page. Raises ``InvalidCursor``, ``AuditUnavailable``."""
        ...


class AuditResource:
    """The resource."""

    def __init__(self, trail: AuditReader, clock: Callable[[], float] = time.time) -> None:
        self._trail, self._clock = trail, clock

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        query = query_of(req, AuditListQuery)
        since = None if query.since is None else moment(query.since).at(self._clock())
        page = self._trail.read(
            AuditQuery(query.limit, since, query.actor, query.action, query.outcome, query.cursor, query.after)
        )
        if page.next_cursor is not None:
            resp.append_link(_page(query, since, cursor=page.next_cursor), "next")
        if page.newest is not None:
            resp.append_link(_page(query, since, after=page.newest), "prev")
        resp.cache_control = ("no-store",)
        resp.content_type = falcon.MEDIA_JSON
        resp.data = orjson.dumps(page.entries)

    on_head = on_get


def audit_resources(trail: AuditReader) -> dict[str, object]:
    """What answers at each path."""
    return {"/api/audit": AuditResource(trail)}


def _page(query: AuditListQuery, since: float | None, **place: str) -> str:
    said = {"actor": query.actor, "action": query.action, "outcome": query.outcome}
    named = {name: value for name, value in said.items() if value is not None}
    # A moment before now is told as the moment that it was.
    begin = {} if since is None else {"since": f"{since:.3f}"}
    return "/api/audit?" + urlencode({**begin, **named, "limit": query.limit, **place})
