"""Reads the body of a request within bounds of size and time, and checks bodies and queries by pydantic models.

A request that is wrong is a 422 with every error at once, field by field.
"""

import contextlib
import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import falcon
import gevent
import orjson
from gunicorn.http.errors import ParseException
from msgspec import UNSET
from pydantic import BaseModel, ConfigDict, ValidationError

from fleetpulse.master.api.problems import FieldProblem, InvalidRequest, Rejection

MAX_BODY_BYTES = 1024 * 1024
BODY_DEADLINE_SECONDS = 10.0
OPEN_BODY_BYTES = 4096
OPEN_BODY_SECONDS = 2.0
"""The limits of a body that is read before any token is looked at."""

MAX_DEPTH = 1024
"""Nested arrays and objects; orjson's own limit."""

MAX_VALUE_LENGTH = 200
_MAX_FIELD_LENGTH = 200


class RequestBody(BaseModel):
    """The base of the bodies of requests: no unknown fields, no coercion."""

    model_config = ConfigDict(
        strict=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


Model = TypeVar("Model", bound=BaseModel)


class _TooSlow(Exception):
    """No ``BaseException``, so that gunicorn sees that the body failed, and ends the connection after the answer."""


class ClientConnection(Protocol):
    """What the HTTP edge knows of a request's connection; ``gunicorn.socket`` in the request's environment."""

    def is_own_user(self) -> bool:
        """Returns whether the other end belongs to the master's own user or root."""

    def evictable(self) -> AbstractContextManager[None]:
        """While the context is open, the connection may be cut to make room for another one."""


def read_open_json(req: falcon.Request) -> Any:
    """Does the same as ``read_json`` for a request that needs no token: small, soon, and evicted like an idle one."""
    connection: ClientConnection | None = req.env.get("gunicorn.socket")
    with contextlib.nullcontext() if connection is None else connection.evictable():
        return read_json(req, max_bytes=OPEN_BODY_BYTES, deadline_seconds=OPEN_BODY_SECONDS)


def read_json(
    req: falcon.Request,
    *,
    is_optional: bool = False,
    max_bytes: int = MAX_BODY_BYTES,
    deadline_seconds: float = BODY_DEADLINE_SECONDS,
) -> Any:
    """Waits for the body; returns ``None`` for an optional one that is absent. Raises 400, 408, 411, 413 or 415.

    Falcon bounds no body, and gunicorn would wait for ever for one that trickles in.
    """
    is_chunked = req.get_header("Transfer-Encoding") is not None
    if is_optional and not req.content_length and not is_chunked:
        return None
    if req.content_length is None and not is_chunked:
        raise falcon.HTTPLengthRequired(description="the request needs a body, and a Content-Length")
    _check_content_type(req)
    return parse(_read(req, max_bytes, deadline_seconds))


def _read(req: falcon.Request, max_bytes: int, deadline_seconds: float) -> bytes:
    length = req.content_length
    if length is not None and length > max_bytes:
        raise _too_large(max_bytes)
    # Falcon's own bounded stream is empty where there is no Content-Length.
    stream = req.env["wsgi.input"]
    try:
        with gevent.Timeout(deadline_seconds, _TooSlow):
            body: bytes = stream.read(max_bytes + 1 if length is None else length)
    except _TooSlow:
        raise Rejection(408, "slow_body", f"the body was not complete after {deadline_seconds:g} s") from None
    except (OSError, ParseException) as error:
        raise falcon.HTTPBadRequest(description="the body broke off, or its chunks are malformed") from error
    if len(body) > max_bytes:
        raise _too_large(max_bytes)
    if length is not None and len(body) < length:
        raise falcon.HTTPBadRequest(description=f"the body ended after {len(body)} of {length} bytes")
    return body


def _too_large(max_bytes: int) -> Rejection:
    """A variable with the exception would make a cycle with its traceback, which keeps the body until a collection."""
    return Rejection(413, "body_too_large", f"a body may have {max_bytes} bytes at most")


def parse(body: bytes) -> Any:
    """Parses JSON. Raises a 400 that says where it is malformed.

    NaN, infinities and lone surrogates are not JSON but common, so they pass here; the field that holds one is refused
    by its name, together with everything else that is wrong.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        if error.msg.startswith("depth limit"):
            detail = f"the body is not JSON: it is nested deeper than {MAX_DEPTH} levels ({where})"
            raise Rejection(400, "json_too_deep", detail) from None
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(body.decode("utf-8"))
        raise falcon.HTTPBadRequest(description=f"the body is not JSON: {error.msg} ({where})") from error


def validated(
    model: type[Model], value: object, errors: Sequence[FieldProblem] = (), secrets: frozenset[str] = frozenset()
) -> Model:
    """Returns the value as the model. Raises ``InvalidRequest`` with the ``errors`` found before, and all of its own.

    The values of the fields in ``secrets`` are never repeated.
    """
    try:
        checked = model.model_validate(value)
    except ValidationError as error:
        # In no variable: the errors hold exceptions, and they this frame. A cycle would keep the body for seconds.
        known = frozenset(model.model_fields)
        raise InvalidRequest([*errors, *_field_problems(error.errors(include_url=False), known, secrets)]) from None
    if errors:
        raise InvalidRequest(errors)
    return checked


def query_of(req: falcon.Request, model: type[Model]) -> Model:
    """Returns the checked query of a request. Raises ``InvalidRequest``."""
    return validated(model, req.params)


def _check_content_type(req: falcon.Request) -> None:
    media_type, _, parameters = (req.content_type or "").partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if media_type.strip().lower() != falcon.MEDIA_JSON or charset not in {"", "utf-8", "utf8"}:
        detail = f"the Content-Type must be {falcon.MEDIA_JSON}, not {req.content_type or 'absent'}"
        raise falcon.HTTPUnsupportedMediaType(description=detail)


def _field_problems(found: Iterable[Any], known: frozenset[str], secrets: frozenset[str]) -> Iterable[FieldProblem]:
    for error in found:
        location: tuple[int | str, ...] = error["loc"]
        value = error["input"]
        is_shown = isinstance(value, str | int | float | None) and error["type"] != "missing"
        if location and location[0] in secrets:
            is_shown = False
        yield FieldProblem(_field(location), _message(error, known), _echo(value) if is_shown else UNSET)


def _field(location: tuple[int | str, ...]) -> str:
    """``command[2]``, ``env.PATH``; ``(body)`` for the whole."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part != "[key]":
            text += f".{part}" if text else part
    return _encodable(text[:_MAX_FIELD_LENGTH]) or "(body)"


def _message(error: Mapping[str, Any], known: frozenset[str]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":
        message = str(context["error"])
    elif kind == "extra_forbidden":
        message = _unknown(str(error["loc"][-1]), known)
    else:
        template = _MESSAGES.get(kind)
        message = error["msg"] if template is None else template.format(**context)
    return f"has a name that {message}" if "[key]" in error["loc"] else _encodable(message)


def _unknown(name: str, known: frozenset[str]) -> str:
    similar = difflib.get_close_matches(name[:_MAX_FIELD_LENGTH], sorted(known), n=1)
    return f"is not known; is {similar[0]} meant?" if similar else f"is not known; known are {', '.join(sorted(known))}"


def _echo(value: object) -> object:
    """The value in a form that an answer can repeat: of bounded length, and valid in JSON."""
    if isinstance(value, str):
        return _encodable(value if len(value) <= MAX_VALUE_LENGTH else f"{value[:MAX_VALUE_LENGTH]}…")
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 63:
        return "a number of more than 63 bits"
    if isinstance(value, float) and value - value != 0.0:
        return str(value)  # NaN, inf, -inf
    return value


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


_MESSAGES = {
    "missing": "is required",
    "string_type": "must be a string",
    "string_unicode": "must be valid Unicode",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a map",
    "model_type": "must be a JSON object",
    "too_short": "must not be empty",
    "too_long": "must have at most {max_length} entries, not {actual_length}",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "enum": "must be one of {expected}",
    "literal_error": "must be one of {expected}",
}
"""By pydantic's type of error."""
