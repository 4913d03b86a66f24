"""Records in the audit trail what came in by REST: whatever could change something, and every refusal."""

import re
from collections.abc import Sequence
from enum import Enum
from http import HTTPStatus
from typing import Any, Protocol

import falcon
import orjson

from fleetpulse.master.api.operations import Route
from fleetpulse.master.audit.entry import ANONYMOUS, AuditEntry, AuditOutcome, Record

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_REFUSALS = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.MISDIRECTED_REQUEST,
        HTTPStatus.TOO_MANY_REQUESTS,
    }
)
"""What a caller is refused for who or what it is, and not for what it says; beside what is past a limit."""

_NO_ACTION = "(none)"
_DOOR, _PAGE_DOOR = "rest", "page"
_SESSION = "session"
"""The ``door`` of an identity that the cookie of the page showed."""


class _Identity(Protocol):
    """Who asks, as whoever checks that puts it on the request's context as ``identity``; there is none of anonymous."""

    @property
    def name(self) -> str: ...

    @property
    def role(self) -> Enum: ...

    @property
    def door(self) -> str: ...


class AuditMiddleware:
    """Middleware, to stand before all that refuses, so that it sees what came of a request in the end.

    Knows of a request only what its first line, its connection and the answer's status say: no header and no body is
    ever recorded, nor a query.
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
        if req.method in _READING and not is_refused:
            return
        detail = _words(resp) if is_refused else _title(resp)
        identity: _Identity | None = getattr(req.context, "identity", None)
        self._record(
            AuditEntry(
                actor=ANONYMOUS if identity is None else identity.name,
                role=None if identity is None else identity.role.name.lower(),
                door=_PAGE_DOOR if identity is not None and identity.door == _SESSION else _DOOR,
                client=req.remote_addr,
                action=self._action(req.method, req.path),
                target=_target(req, resp),
                outcome=AuditOutcome.REFUSED if is_refused else _outcome(resp.status_code),
                status=str(resp.status_code),
                detail=detail if rejection is None else f"{rejection}: {detail}",
            )
        )

    def _action(self, method: str, path: str) -> str:
        # Not the app's own finding: who is refused early has not been led to a route yet.
        method = "GET" if method == "HEAD" else method
        found = (name for pattern, takes, name in self._actions if takes == method and pattern.fullmatch(path))
        return next(found, _NO_ACTION)


def _target(req: falcon.Request, resp: falcon.Response) -> str:
    """What it was about; what it made, if it made something."""
    made = resp.get_header("Location") if resp.status_code < HTTPStatus.MULTIPLE_CHOICES else None
    return made or req.path


def _outcome(status: int) -> AuditOutcome:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return AuditOutcome.FAILED
    return AuditOutcome.REFUSED if status >= HTTPStatus.BAD_REQUEST else AuditOutcome.OK


def _words(resp: falcon.Response) -> str:
    """Of the problem. For refusals alone, which cannot repeat what was sent."""
    try:
        return f"{orjson.loads(resp.data or b'')['detail']}"
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return _title(resp)  # a page for people


def _title(resp: falcon.Response) -> str:
    title: str = falcon.code_to_http_status(resp.status_code).partition(" ")[2]
    return title if resp.status_code >= HTTPStatus.BAD_REQUEST else ""
