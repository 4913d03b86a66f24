"""The queries of the paths about tasks and workers, and the kinds of value that every query shares.

These types validate queries, and describe them.
"""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

import falcon
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from fleetpulse.master.api.problems import FieldProblem, InvalidRequest
from fleetpulse.master.api.validation import query_of
from fleetpulse.master.errors import UnknownTask, UnknownWorker
from fleetpulse.master.tasks.records import TaskQuery, TaskStatus
from fleetpulse.proto.rules import WORKER_ID_PATTERN, WORKER_ID_RULE, is_task_id, is_worker_id

MAX_PAGE = 1000
MAX_TAIL_LINES = 100_000
MAX_LOG_BYTES = 1024 * 1024
MAX_NAMED_WORKERS = 1000
_MAX_OFFSET = 2**53 - 1
"""The largest whole number that every reader of JSON understands."""

EVENT_ID_PATTERN = "([0-9]{1,9})-([0-9]{1,15})"
_EVENT_ID = re.compile(EVENT_ID_PATTERN)
_NUMBER = re.compile(r"-?[0-9]{1,16}")
_CURSOR = re.compile(r"[\x21-\x7e]{1,512}")

_BEFORE_NOW = re.compile(r"-([0-9]{1,9}(?:\.[0-9]{1,3})?)(s|m|h|d)")
_UNIX = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?")
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+\- ]\d\d:\d\d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_MOMENT_RULE = "must be Unix seconds, RFC 3339 with a time zone, or before now as -90s, -15m, -1h, -7d"


def moment(text: str, now: float) -> float:
    """Parses a moment; returns its Unix seconds. Raises ``ValueError``."""
    if text == "now":
        return now
    if (match := _BEFORE_NOW.fullmatch(text)) is not None:
        return now - float(match[1]) * _SECONDS[match[2]]
    if _UNIX.fullmatch(text):
        return float(text)
    if _RFC_3339.fullmatch(text):
        # A '+' that was not escaped comes as a space.
        zoned = f"{text[:10]}T{text[11:]}".replace(" ", "+").upper()
        try:
            return datetime.fromisoformat(zoned).timestamp()
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{_MOMENT_RULE}; this one does not exist: {error}") from None
    raise ValueError(_MOMENT_RULE)


def _moment_text(text: str) -> str:
    moment(text, now=0.0)
    return text


def _number(text: Any) -> Any:
    if not isinstance(text, str):
        raise ValueError("must be given once")  # noqa: TRY004 - pydantic takes no TypeError
    if not _NUMBER.fullmatch(text):
        raise ValueError("must be a whole number")
    return int(text)


def _boolean(text: Any) -> Any:
    if text not in ("true", "false"):  # a list has no hash
        raise ValueError("must be true or false")
    return text == "true"


def _names(value: Any) -> Any:
    texts = value if isinstance(value, list) else [value]
    # In the order in which they were asked for, each once.
    return list(dict.fromkeys(name for text in texts for name in str(text).split(",")))


def _once(value: Any) -> Any:
    if isinstance(value, list):
        raise ValueError("must be given once")  # noqa: TRY004 - pydantic takes no TypeError
    return value


def _schema(**schema: Any) -> Any:
    """Of a parameter: how its schema shows the rule that a validator enforces."""
    return Field(json_schema_extra=schema)


def rule(is_valid: Callable[[str], object], words: str) -> AfterValidator:
    """Returns a validator of texts; ``words`` follow "must be" in its error."""

    def check(text: str) -> str:
        if not is_valid(text):
            raise ValueError(f"must be {words}")
        return text

    return AfterValidator(check)


Number = BeforeValidator(_number)
Names = BeforeValidator(_names)
Once = BeforeValidator(_once)
PrintableText = Annotated[
    str, Field(max_length=128), _schema(format="printable"), rule(str.isprintable, "printable"), Once
]
CursorText = Annotated[
    str, _schema(format="cursor"), rule(_CURSOR.fullmatch, "that of a Link header of this master"), Once
]
MomentText = Annotated[str, _schema(format="moment"), AfterValidator(_moment_text), Once]
WorkerIdText = Annotated[str, _schema(pattern=f"^{WORKER_ID_PATTERN}$"), rule(is_worker_id, WORKER_ID_RULE)]
PageSize = Annotated[int, Field(ge=1, le=MAX_PAGE), Number]


class Query(BaseModel):
    """The base of queries: no unknown parameters."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)


class TaskListQuery(Query):
    """``GET /api/tasks``."""

    status: Annotated[frozenset[TaskStatus], Names] = frozenset()
    """One or more, repeated or with commas between; if there is none, all."""
    worker_id: Annotated[WorkerIdText | None, Once] = None
    """Whose newest attempt is or was on this worker."""
    name: PrintableText | None = None
    """Whose name begins so."""
    limit: PageSize = 100
    """How many at most."""
    cursor: CursorText | None = None
    """From the `Link` header of the page before."""

    def task_query(self) -> TaskQuery:
        """Returns the query for the store."""
        return TaskQuery(self.status, self.worker_id, self.name, self.limit, self.cursor)


class AttemptListQuery(Query):
    """``GET /api/workers/{worker_id}/tasks``."""

    limit: PageSize = 100
    """How many at most."""


class LogQuery(Query):
    """``GET /api/tasks/{task_id}/logs``."""

    attempt: Annotated[int | None, Field(ge=1, le=10**9), Number] = None
    """Which; the newest if not given."""
    offset: Annotated[int | None, Field(ge=-_MAX_OFFSET, le=_MAX_OFFSET), Number] = None
    """The first byte; negative: from the end."""
    tail: Annotated[int | None, Field(ge=1, le=MAX_TAIL_LINES), Number] = None
    """So many lines from the end, within `limit`; not together with `offset`."""
    limit: Annotated[int | None, Field(ge=1, le=MAX_LOG_BYTES), Number] = None
    """Bytes at most; not together with `follow`."""
    format: Annotated[Literal["json", "text"] | None, Once] = None
    """If not given, what `Accept` prefers, JSON if it does not say; not together with `follow`."""
    follow: Annotated[bool, BeforeValidator(_boolean)] = False
    """Server-sent events, until the end."""


class StreamQuery(Query):
    """``GET /telemetry/stream``."""

    worker_id: Annotated[frozenset[WorkerIdText], Field(max_length=MAX_NAMED_WORKERS), Names] = frozenset()
    """Only these workers, repeated or with commas between; if there is none, all."""
    fields: Annotated[Literal["all", "summary"], Once] = "all"
    """The whole record of each, or a short form."""


class MetricsQuery(Query):
    """``GET /api/workers/{worker_id}/metrics``."""

    per_core: Annotated[bool, BeforeValidator(_boolean)] = False
    """Also `cores`. The worker reads them for a minute after each such request: at first the array is empty."""


class NoQuery(Query):
    """Of paths that take no query."""


def log_query_of(req: falcon.Request) -> LogQuery:
    """Returns the checked query for a log, where some parameters exclude others. Raises ``InvalidRequest``."""
    query = query_of(req, LogQuery)
    errors = []
    if query.tail is not None and query.offset is not None:
        errors.append(FieldProblem("tail", "cannot be had together with offset"))
    if query.follow and query.limit is not None:
        errors.append(FieldProblem("limit", "cannot be had together with follow"))
    if query.follow and query.format is not None:
        errors.append(FieldProblem("format", "cannot be had together with follow, which answers server-sent events"))
    if errors:
        raise InvalidRequest(errors)
    return query


def last_event_id(req: falcon.Request) -> tuple[int, int] | None:
    """Returns attempt and offset of ``Last-Event-ID``, ``None`` without one. Raises ``InvalidRequest``."""
    header = req.get_header("Last-Event-ID")
    if not header:
        return None
    match = _EVENT_ID.fullmatch(header)
    if match is None:
        raise InvalidRequest([FieldProblem("Last-Event-ID", "must be that of an event: <attempt>-<offset>")])
    return int(match[1]), int(match[2])


def check_task_id(task_id: str) -> None:
    """Raises ``UnknownTask`` for a malformed id, so that the store need not look for it."""
    if not is_task_id(task_id):
        raise UnknownTask(task_id)


def check_worker_id(worker_id: str) -> None:
    """Raises ``UnknownWorker`` for a malformed id."""
    if not is_worker_id(worker_id):
        raise UnknownWorker(worker_id)
