"""What is answered to a request that never reaches the app, as RFC 9457 problems, and how it is counted."""

import ssl
from http import HTTPStatus
from typing import NamedTuple

import orjson
from gunicorn.http import errors

RETRY_AFTER_SECONDS = 5
MAX_HEAD_BYTES = 64 * 1024
"""Of the first line and all headers."""

TLS_HANDSHAKE = "tls_handshake"
"""The reason where there is nobody to answer."""

_MAX_DETAIL_LENGTH = 200


class Refusal(NamedTuple):
    """``reason`` is one of ``instruments.REJECT_REASONS``; ``None``: the master's own fault, which is no refusal."""

    status: HTTPStatus
    reason: str | None
    detail: str
    retry_after_seconds: int | None = None
    kind: str | None = None
    """What goes into the audit trail in place of a detail that repeats what was sent."""

    def answer(self, *, closes: bool, has_body: bool = True) -> bytes:
        """The whole answer; ``has_body`` is false for a HEAD."""
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


FULL = Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE, "connections", "the master has as many connections as it takes", RETRY_AFTER_SECONDS
)
CLIENT_FULL = Refusal(
    HTTPStatus.TOO_MANY_REQUESTS, "client_connections", "this client has as many connections as one may have",
    RETRY_AFTER_SECONDS,
)  # fmt: skip
TOO_OFTEN = Refusal(HTTPStatus.TOO_MANY_REQUESTS, "client_requests", "this client asks too often", 1)
SLOW_HEAD = Refusal(HTTPStatus.REQUEST_TIMEOUT, "slow_head", "the head of the request was not complete in time")
HEAD_TOO_LARGE = Refusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large",
    f"the headers are too many, or one of them or all together are too large ({MAX_HEAD_BYTES} bytes)",
)  # fmt: skip
LINE_TOO_LONG = Refusal(HTTPStatus.REQUEST_URI_TOO_LONG, "line_too_long", "the first line of the request is too long")
NO_TLS = Refusal(HTTPStatus.BAD_REQUEST, "malformed", "what came is no TLS any more")
FAILED = Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, None, "the master failed on this request; its log says why")


class HeadTooLarge(errors.LimitRequestHeaders):
    """All headers together are."""

    def __init__(self) -> None:
        super().__init__("the head is too large")


def refusal_of(error: BaseException) -> Refusal:
    """What to answer to a request that could not be read, or on which the app failed."""
    if isinstance(error, errors.LimitRequestLine):
        return LINE_TOO_LONG
    if isinstance(error, errors.LimitRequestHeaders):
        return HEAD_TOO_LARGE
    if isinstance(error, ssl.SSLError):
        return NO_TLS
    if isinstance(error, errors.ParseException) and type(error).__name__ not in _FAULTS_OF_THE_APP:
        status = _STATUS_BY_ERROR.get(type(error), HTTPStatus.BAD_REQUEST)
        return Refusal(
            status, "malformed", ascii(str(error))[1:-1][:_MAX_DETAIL_LENGTH], kind=type(error).__name__
        )  # fmt: skip
    return FAILED


_FAULTS_OF_THE_APP = frozenset({"ConfigurationProblem", "InvalidResponseHeader", "InvalidResponseHeaderName"})
_STATUS_BY_ERROR: dict[type[errors.ParseException], HTTPStatus] = {
    errors.UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
    errors.ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
}
