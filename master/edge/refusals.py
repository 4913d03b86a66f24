"""Answers to requests that never reach the app, as RFC 9457 problems, with their reason and their audit entry."""

import ssl
from http import HTTPStatus
from typing import NamedTuple

import orjson
from gunicorn.http import errors

from fleetpulse.master.audit.entries import ANONYMOUS, AuditEntry, AuditOutcome
from fleetpulse.master.errors import RETRY_AFTER_SECONDS

CONNECT, REQUEST = "connect", "request"
"""Actions of audit entries: what was refused, the connection or a request on it."""

MAX_HEAD_BYTES = 64 * 1024
"""Of the first line and all headers."""

TLS_HANDSHAKE = "tls_handshake"
"""The reason where no answer is possible."""

_MAX_DETAIL_LENGTH = 200


class HttpRefusal(NamedTuple):
    """``reason`` is one of ``instruments.REJECT_REASONS``; ``None`` for a failure of the master."""

    status: HTTPStatus
    reason: str | None
    detail: str
    retry_after_seconds: int | None = None
    kind: str | None = None
    """For the audit trail, in place of a detail that quotes the request."""

    def answer(self, *, closes: bool, has_body: bool = True) -> bytes:
        """Returns the whole answer; ``has_body`` is false for a HEAD."""
        problem = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
        }
        body = orjson.dumps(problem)
        head = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\n"
            "Content-Type: application/problem+json\r\n"
            f"Content-Length: {len(body)}\r\n"
            f"Connection: {'close' if closes else 'keep-alive'}\r\n"
        )
        if self.retry_after_seconds is not None:
            head += f"Retry-After: {self.retry_after_seconds}\r\n"
        return f"{head}\r\n".encode() + (body if has_body else b"")


FULL = HttpRefusal(
    HTTPStatus.SERVICE_UNAVAILABLE, "connections", "the master has as many connections as it takes", RETRY_AFTER_SECONDS
)
CLIENT_FULL = HttpRefusal(
    HTTPStatus.TOO_MANY_REQUESTS, "client_connections", "this client has as many connections as one may have",
    RETRY_AFTER_SECONDS,
)  # fmt: skip
TOO_OFTEN = HttpRefusal(HTTPStatus.TOO_MANY_REQUESTS, "client_requests", "this client asks too often", 1)
SLOW_HEAD = HttpRefusal(HTTPStatus.REQUEST_TIMEOUT, "slow_head", "the head of the request was not complete in time")
HEAD_TOO_LARGE = HttpRefusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large",
    f"the headers are too many, or one of them or all together are too large ({MAX_HEAD_BYTES} bytes)",
)  # fmt: skip
LINE_TOO_LONG = HttpRefusal(
    HTTPStatus.REQUEST_URI_TOO_LONG, "line_too_long", "the first line of the request is too long"
)  # fmt: skip
NO_TLS = HttpRefusal(HTTPStatus.BAD_REQUEST, "malformed", "what came is no TLS any more")
FAILED = HttpRefusal(HTTPStatus.INTERNAL_SERVER_ERROR, None, "the master failed on this request; its log says why")


class HeadTooLarge(errors.LimitRequestHeaders):
    """All headers together are too large."""

    def __init__(self) -> None:
        super().__init__("the head is too large")


def audit_entry(reason: str, detail: str, address: str, action: str, status: str = "", target: str = "") -> AuditEntry:
    """Returns the entry of a refused connection or request. Its actor is unknown: no token has been read yet."""
    detail = f"{reason}: {detail}"
    return AuditEntry(ANONYMOUS, None, "http", address, action, target, AuditOutcome.REFUSED, status, detail)


def refusal_of(error: BaseException) -> HttpRefusal:
    """Returns the answer to a request that could not be parsed, or on which the app failed."""
    if isinstance(error, errors.LimitRequestLine):
        return LINE_TOO_LONG
    if isinstance(error, errors.LimitRequestHeaders):
        return HEAD_TOO_LARGE
    if isinstance(error, ssl.SSLError):
        return NO_TLS
    if isinstance(error, errors.ParseException) and type(error).__name__ not in _APP_ERRORS:
        status = _STATUS_BY_ERROR.get(type(error), HTTPStatus.BAD_REQUEST)
        return HttpRefusal(
            status, "malformed", ascii(str(error))[1:-1][:_MAX_DETAIL_LENGTH], kind=type(error).__name__
        )  # fmt: skip
    return FAILED


_APP_ERRORS = frozenset({"ConfigurationProblem", "InvalidResponseHeader", "InvalidResponseHeaderName"})
_STATUS_BY_ERROR: dict[type[errors.ParseException], HTTPStatus] = {
    errors.UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
    errors.ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
}
