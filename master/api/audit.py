"""The audit trail: a middleware that records what came in by REST, and ``/api/audit``, which reads the trail."""

import re
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlencode

import falcon
import msgspec
from pydantic import ValidationInfo, field_validator

from fleetpulse.master.access.tokens import Identity
from fleetpulse.master.api.answers import send_json
from fleetpulse.master.api.operations import Route
from fleetpulse.master.api.problems import Problem
from fleetpulse.master.api.queries import CursorText, MomentText, Once, PageSize, PrintableText, Query, moment
from fleetpulse.master.api.validation import query_of
from fleetpulse.master.audit.entry import ANONYMOUS, AuditEntry, AuditOutcome, Record
from fleetpulse.master.audit.reader import AuditPage, AuditQuery

_READ_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_REFUSALS = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.MISDIRECTED_REQUEST,
        HTTPStatus.TOO_MANY_REQUESTS,
    }
)
"""Refused for who or what the caller is, not for what it says; a ``Rejection`` is a refusal as well."""

_NO_ACTION = "(none)"


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


class AuditMiddleware:
    """Records every request that could change something, and every refusal. Stands before all that refuses.

    It knows of a request only its first line, its connection and the status of its answer: no header, body or query is
    recorded.
    """

    def __init__(self, record: Record, routes: Sequence[Route]) -> None:
        self._record = record
        self._actions = [
            (re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(route.path))), operation.method, operation.name)
            # A path without fields goes before one that it would match too.
            for route in sorted(routes, key=lambda route: "{" in route.path)
            for operation in route.operations
        ]

    def process_response(self, req: falcon.Request, resp: falcon.Response, _resource: Any, _ok: bool) -> None:
        rejection: str | None = getattr(req.context, "rejection", None)
        is_refused = rejection is not None or resp.status_code in _REFUSALS
        if req.method in _READ_METHODS and not is_refused:
            return
        detail = _problem_detail(resp) if is_refused else _status_title(resp)
        identity: Identity | None = getattr(req.context, "identity", None)
        made = resp.get_header("Location") if resp.status_code < HTTPStatus.MULTIPLE_CHOICES else None
        self._record(
            AuditEntry(
                actor=ANONYMOUS if identity is None else identity.name,
                role=None if identity is None else identity.role.name.lower(),
                source="page" if identity is not None and identity.auth_method == "session" else "http",
                client=req.remote_addr,
                action=self._action(req.method, req.path),
                target=made or req.path,
                outcome=AuditOutcome.REFUSED if is_refused else _outcome(resp.status_code),
                status=str(resp.status_code),
                detail=detail if rejection is None else f"{rejection}: {detail}",
            )
        )

    def _action(self, method: str, path: str) -> str:
        # The app has not routed a request that is refused early.
        method = "GET" if method == "HEAD" else method
        found = (name for pattern, takes, name in self._actions if takes == method and pattern.fullmatch(path))
        return next(found, _NO_ACTION)


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


def _outcome(status: int) -> AuditOutcome:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return AuditOutcome.FAILED
    return AuditOutcome.REFUSED if status >= HTTPStatus.BAD_REQUEST else AuditOutcome.OK


def _problem_detail(resp: falcon.Response) -> str:
    """Returns the detail of a refusal's problem, which never repeats what was sent."""
    try:
        return msgspec.json.decode(resp.data or b"", type=Problem).detail
    except msgspec.DecodeError:
        return _status_title(resp)  # a page for people


def _status_title(resp: falcon.Response) -> str:
    title: str = falcon.code_to_http_status(resp.status_code).partition(" ")[2]
    return title if resp.status_code >= HTTPStatus.BAD_REQUEST else ""
