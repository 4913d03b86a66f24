"""The body of a request, read within bounds of size and time, as JSON."""

import contextlib
import json
from typing import Any

import falcon
import gevent
import orjson
from gunicorn.http.errors import ParseException

from fleetpulse.master.api.problems import Rejection

MAX_BODY_BYTES = 1024 * 1024
BODY_DEADLINE_SECONDS = 10.0
MAX_DEPTH = 1024
"""Of arrays and objects within each other; orjson's own limit."""


class _TooSlow(Exception):
    """No ``BaseException``, so that gunicorn sees that the body failed, and ends the connection after the answer."""


class BodyReader:
    """Reads JSON bodies. Falcon bounds none, and gunicorn would wait for one that trickles in for ever."""

    def __init__(self, max_bytes: int = MAX_BODY_BYTES, deadline_seconds: float = BODY_DEADLINE_SECONDS) -> None:
        self._max_bytes = max_bytes
        self._deadline_seconds = deadline_seconds

    def json(self, req: falcon.Request) -> Any:
        """Wait for the body. Raises 400, 408, 411, 413 or 415."""
        if req.content_length is None and not _is_chunked(req):
            raise falcon.HTTPLengthRequired(description="the request needs a body, and a Content-Length")
        _check_content_type(req)
        return parse(self._read(req))

    def optional_json(self, req: falcon.Request) -> Any:
        """The same, but ``None`` for a request without a body."""
        if not req.content_length and not _is_chunked(req):
            return None
        return self.json(req)

    def _read(self, req: falcon.Request) -> bytes:
        length = req.content_length
        if length is not None and length > self._max_bytes:
            raise self._too_large()
        # Falcon's own bounded stream is empty where there is no Content-Length.
        stream = req.env["wsgi.input"]
        try:
            with gevent.Timeout(self._deadline_seconds, _TooSlow):
                body: bytes = stream.read(self._max_bytes + 1 if length is None else length)
        except _TooSlow:
            told = f"the body was not complete after {self._deadline_seconds:g} s"
            raise Rejection(408, "slow_body", told) from None
        except (OSError, ParseException) as error:
            raise falcon.HTTPBadRequest(description="the body broke off, or its chunks are malformed") from error
        if len(body) > self._max_bytes:
            raise self._too_large()
        if length is not None and len(body) < length:
            raise falcon.HTTPBadRequest(description=f"the body ended after {len(body)} of {length} bytes")
        return body

    def _too_large(self) -> Rejection:
        return Rejection(413, "body_too_large", f"a body may have {self._max_bytes} bytes at most")


def parse(body: bytes) -> Any:
    """JSON, or a 400 that says where it is none.

    NaN, infinities and lone surrogates are no JSON either, but common enough that they are let through: the field that
    holds one is refused by its name, together with everything else that is wrong.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        if error.msg.startswith("depth limit"):
            told = f"the body is not JSON: it is nested deeper than {MAX_DEPTH} levels ({where})"
            raise Rejection(400, "json_too_deep", told) from None
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(body.decode("utf-8"))
        raise falcon.HTTPBadRequest(description=f"the body is not JSON: {error.msg} ({where})") from error


def _is_chunked(req: falcon.Request) -> bool:
    return req.get_header("Transfer-Encoding") is not None


def _check_content_type(req: falcon.Request) -> None:
    media_type, _, parameters = (req.content_type or "").partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if media_type.strip().lower() != falcon.MEDIA_JSON or charset not in {"", "utf-8", "utf8"}:
        told = f"the Content-Type must be {falcon.MEDIA_JSON}, not {req.content_type or 'absent'}"
        raise falcon.HTTPUnsupportedMediaType(description=told)
