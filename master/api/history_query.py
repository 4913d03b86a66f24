"""What the query of a worker's history may say, and the moments that it names."""

import re
from datetime import datetime
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from fleetpulse.master.api.invalid import FieldError, InvalidRequest
from fleetpulse.master.api.queries import Number, Once
from fleetpulse.master.history.fields import FIELD_BY_NAME
from fleetpulse.master.history.window import MAX_POINTS, MAX_STEP

MIN_STEP = 15
LONGEST_SECONDS = 5 * 366 * 86_400
"""How far back a history may be asked for."""

_SKEW_SECONDS = 60
"""A client's clock may be ahead by so much."""

_BEFORE_NOW = re.compile(r"-([0-9]{1,9}(?:\.[0-9]{1,3})?)(s|m|h|d)")
_UNIX = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?")
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+\- ]\d\d:\d\d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_MOMENT_RULE = "must be Unix seconds, RFC 3339 with a time zone, or before now as -90s, -15m, -1h, -7d"


class Moment(NamedTuple):
    """A moment as it was said: itself, or so many seconds before now."""

    unix: float | None
    before_now: float = 0.0

    def at(self, now: float) -> float:
        return now - self.before_now if self.unix is None else self.unix


def moment(text: str) -> Moment:
    """Raise ``ValueError`` for what names no moment."""
    if text == "now":
        return Moment(None)
    if (match := _BEFORE_NOW.fullmatch(text)) is not None:
        return Moment(None, float(match[1]) * _SECONDS[match[2]])
    if _UNIX.fullmatch(text):
        return Moment(float(text))
    if _RFC_3339.fullmatch(text):
        # A '+' that was not escaped comes as a space.
        zoned = f"{text[:10]}T{text[11:]}".replace(" ", "+").upper()
        try:
            return Moment(datetime.fromisoformat(zoned).timestamp())
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{_MOMENT_RULE}; this one does not exist: {error}") from None
    raise ValueError(_MOMENT_RULE)


def _is_moment(text: str) -> str:
    moment(text)
    return text


def _names(value: Any) -> Any:
    texts = value if isinstance(value, list) else [value]
    # In the order in which they were asked for, each once.
    return list(dict.fromkeys(name for text in texts for name in str(text).split(",")))


def _field(name: str) -> str:
    if name not in FIELD_BY_NAME:
        raise ValueError(f"must be one of {', '.join(FIELD_BY_NAME)}")
    return name


MomentText = Annotated[str, Field(json_schema_extra={"format": "moment"}), AfterValidator(_is_moment), Once]

_Field = Annotated[str, Field(json_schema_extra={"enum": list(FIELD_BY_NAME)}), AfterValidator(_field)]


class HistoryQuery(BaseModel):
    """``GET /telemetry/{worker_id}/history``."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)

    start: Annotated[MomentText, Field(alias="from")] = "-1h"
    """Where it begins: Unix seconds, RFC 3339 with a time zone, or before now as `-90s`, `-15m`, `-1h`, `-7d`."""
    to: MomentText = "now"
    """Where it ends, said alike, or `now`."""
    step: Annotated[int | None, Field(ge=MIN_STEP, le=MAX_STEP), Number] = None
    """Seconds between two points, rounded up to what there is; if not given, it suits the length."""
    fields: Annotated[list[_Field], BeforeValidator(_names)] = list(FIELD_BY_NAME)
    """One or more, repeated or with commas between; if there is none, all."""


class Span(NamedTuple):
    """From when to when, in Unix seconds, not after now."""

    start: float
    stop: float


def span_of(query: HistoryQuery, now: float) -> Span:
    """Raise ``InvalidRequest`` where the moments do not make one."""
    start, stop = moment(query.start).at(now), moment(query.to).at(now)
    errors = []
    if stop > now + _SKEW_SECONDS:
        errors.append(FieldError("to", f"must not be after now, which is {now:.0f}", query.to, True))
    oldest = now - LONGEST_SECONDS
    if start < oldest:
        errors.append(FieldError("from", f"must be {oldest:.0f} at least, which is five years ago", query.start, True))
    if not errors and start >= stop:
        errors.append(FieldError("from", f"must be before to, which is {stop:.0f}", query.start, True))
    if errors:
        raise InvalidRequest(errors)
    return Span(start, min(stop, now) if start < now else stop)


def check_length(span: Span, step: int | None) -> None:
    """Raise ``InvalidRequest`` for a step that makes too many points."""
    if step is not None and (span.stop - span.start) / step > MAX_POINTS:
        least = (span.stop - span.start) / MAX_POINTS
        rule = f"must be at least {least:.0f} for that time: there are {MAX_POINTS} points at most"
        raise InvalidRequest([FieldError("step", rule, step, True)])
