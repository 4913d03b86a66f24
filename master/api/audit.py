"""``/api/audit``, which reads the audit trail."""

import time
from collections.abc import Callable
from typing import Annotated
from urllib.parse import urlencode

import falcon
from pydantic import ValidationInfo, field_validator

from fleetpulse.master.api.answers import send_json
from fleetpulse.master.api.queries import CursorText, MomentText, Once, PageSize, PrintableText, Query, moment
from fleetpulse.master.api.validation import query_of
from fleetpulse.master.audit.entries import AuditOutcome
from fleetpulse.master.audit.reader import AuditPage, AuditQuery


class AuditListQuery(Query):
    """``GET /api/audit``."""

    since: MomentText | None = None
    """Not older: Unix seconds, RFC 3339 with a time zone, or before now as `-90s`, `-15m`, `-1h`, `-7d`."""
    actor: PrintableText | None = None
    """Of this one alone: the name of a token, `worker:ID`, `user:NAME` or `anonymous`."""
    action: PrintableText | None = None
    """Only these: the name of an operation, or what a worker did."""
    outcome: Annotated[AuditOutcome | None, Once] = None
    """Only what ended so."""
    limit: PageSize = 100
    """How many at most."""
    cursor: CursorText | None = None
    """From the `Link` header of the page before."""
    after: CursorText | None = None
    """From the `Link` header of another page: only what was written since, the oldest first. Not with `cursor`."""

    @field_validator("after")
    @classmethod
    def _excludes_cursor(cls, after: str | None, info: ValidationInfo) -> str | None:
        if after is not None and info.data.get("cursor") is not None:
            raise ValueError("must not be given with cursor")
        return after


class AuditResource:
    """``/api/audit``."""

    def __init__(self, read: Callable[[AuditQuery], AuditPage], clock: Callable[[], float] = time.time) -> None:
        """``read`` is ``AuditTrail.read``."""
        self._read, self._clock = read, clock

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        query = query_of(req, AuditListQuery)
        since = None if query.since is None else moment(query.since, self._clock())
        page = self._read(
            AuditQuery(query.limit, since, query.actor, query.action, query.outcome, query.cursor, query.after)
        )
        if page.next_cursor is not None:
            resp.append_link(_page(query, since, cursor=page.next_cursor), "next")
        if page.newest is not None:
            resp.append_link(_page(query, since, after=page.newest), "prev")
        send_json(resp, page.entries, cache_control="no-store")

    on_head = on_get


def _page(query: AuditListQuery, since: float | None, **place: str) -> str:
    given = query.model_dump(mode="json", exclude={"since", "cursor", "after"}, exclude_none=True)
    # Pages of a time before now all begin at the same moment.
    begin = {} if since is None else {"since": f"{since:.3f}"}
    return "/api/audit?" + urlencode({**begin, **given, **place})
