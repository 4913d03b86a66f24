"""A request that says something wrong: 422 with every error at once, field by field."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import falcon
from pydantic import BaseModel, ValidationError

MAX_ERRORS = 100
MAX_VALUE_LENGTH = 200
_MAX_FIELD_LENGTH = 200

Model = TypeVar("Model", bound=BaseModel)


class FieldError(NamedTuple):
    """``value`` is shown only where ``has_value``: not of a field that is missing, holds others, or is secret."""

    field: str
    message: str
    value: object = None
    has_value: bool = False

    def as_json(self) -> dict[str, object]:
        shown = {"field": self.field, "message": self.message}
        return {**shown, "value": self.value} if self.has_value else dict(shown)


class InvalidRequest(falcon.HTTPUnprocessableEntity):
    """The 422. ``errors`` becomes a member of the problem."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        self.errors = [error.as_json() for error in errors[:MAX_ERRORS]]
        told = "; ".join(f"{error.field} {error.message}" for error in errors[:3])
        more = f"; and {len(errors) - 3} more" if len(errors) > 3 else ""
        super().__init__(description=told + more)


def validated(
    model: type[Model], value: object, errors: Sequence[FieldError] = (), secrets: frozenset[str] = frozenset()
) -> Model:
    """The model of the value; raises ``InvalidRequest`` with what is wrong with it, after the errors known already.

    ``secrets`` are the fields of which no value is ever repeated.
    """
    try:
        checked = model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise InvalidRequest([*errors, *_translated(found, frozenset(model.model_fields), secrets)]) from None
    if errors:
        raise InvalidRequest(errors)
    return checked


def _translated(found: Iterable[Any], known: frozenset[str], secrets: frozenset[str]) -> Iterable[FieldError]:
    for error in found:
        location: tuple[int | str, ...] = error["loc"]
        value = error["input"]
        is_shown = isinstance(value, str | int | float | None) and error["type"] != "missing"
        if location and location[0] in secrets:
            is_shown = False
        yield FieldError(_field(location), _message(error, known), _echo(value) if is_shown else None, is_shown)


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
    nearest = difflib.get_close_matches(name[:_MAX_FIELD_LENGTH], sorted(known), n=1)
    return f"is not known; is {nearest[0]} meant?" if nearest else f"is not known; known are {', '.join(sorted(known))}"


def _echo(value: object) -> object:
    """The value as an answer can repeat it: of bounded length, and something that JSON can say."""
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
