"""What the query of each path may say. These types validate requests, and describe them."""

import re
from typing import Annotated, Any, Literal

import falcon
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from fleetpulse.master.api.invalid import FieldError, InvalidRequest, Model, validated
from fleetpulse.master.errors import UnknownTask, UnknownWorker
from fleetpulse.master.tasks.ports import TaskQuery
from fleetpulse.master.tasks.records import TaskStatus
from fleetpulse.proto.rules import WORKER_ID_MAX_LENGTH, WORKER_ID_RULE, is_worker_id

MAX_PAGE = 1000
MAX_TAIL_LINES = 100_000
MAX_LOG_BYTES = 1024 * 1024
MAX_NAMED_WORKERS = 1000
_MAX_OFFSET = 2**53 - 1
"""The largest whole number that every reader of JSON understands."""

WORKER_ID_PATTERN = f"[A-Za-z0-9][A-Za-z0-9._-]{{0,{WORKER_ID_MAX_LENGTH - 1}}}"
_WHOLE_WORKER_ID = f"^{WORKER_ID_PATTERN}$"
_NUMBER = re.compile(r"-?[0-9]{1,16}")
TASK_ID_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_TASK_ID = re.compile(TASK_ID_PATTERN)
_CURSOR = re.compile(r"[\x21-\x7e]{1,512}")
EVENT_ID_PATTERN = "([0-9]{1,9})-([0-9]{1,15})"
_EVENT_ID = re.compile(EVENT_ID_PATTERN)


def _number(text: Any) -> Any:
    if not isinstance(text, str):
        raise ValueError("must be given once")  # noqa: TRY004 - pydantic takes no TypeError
    if not _NUMBER.fullmatch(text):
        raise ValueError("must be a whole number")
    return int(text)


def _truth(text: Any) -> Any:
    if text not in ("true", "false"):  # a list has no hash
        raise ValueError("must be true or false")
    return text == "true"


def _names(value: Any) -> Any:
    texts = value if isinstance(value, list) else [value]
    return [name for text in texts for name in str(text).split(",")]


def _once(value: Any) -> Any:
    if isinstance(value, list):
        raise ValueError("must be given once")  # noqa: TRY004 - pydantic takes no TypeError
    return value


def _shown(**schema: Any) -> Any:
    """For the schema of a parameter alone: the rule that a validator enforces."""
    return Field(json_schema_extra=schema)


def _worker_id(text: str) -> str:
    if not is_worker_id(text):
        raise ValueError(f"must be {WORKER_ID_RULE}")
    return text


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable")
    return text


def _cursor(text: str) -> str:
    if not _CURSOR.fullmatch(text):
        raise ValueError("must be that of a Link header of this master")
    return text


Number = BeforeValidator(_number)
Once = BeforeValidator(_once)
PrintableText = Annotated[str, Field(max_length=128), _shown(format="printable"), AfterValidator(_printable), Once]
CursorText = Annotated[str, _shown(format="cursor"), AfterValidator(_cursor), Once]


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)


class TaskListQuery(_Query):
    """``GET /api/tasks``."""

    status: Annotated[frozenset[TaskStatus], BeforeValidator(_names)] = frozenset()
    """One or more, repeated or with commas between; if there is none, all."""
    worker_id: Annotated[str | None, _shown(pattern=_WHOLE_WORKER_ID), AfterValidator(_worker_id), Once] = None
    """Whose newest attempt is or was on this worker."""
    name: Annotated[str | None, Field(max_length=128), _shown(format="printable"), AfterValidator(_printable), Once] = (
        None
    )
    """Whose name begins so."""
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE), Number] = 100
    """How many at most."""
    cursor: Annotated[str | None, _shown(format="cursor"), AfterValidator(_cursor), Once] = None
    """From the `Link` header of the page before."""

    def task_query(self) -> TaskQuery:
        """The same, as the store knows it."""
        return TaskQuery(self.status, self.worker_id, self.name, self.limit, self.cursor)


class AttemptListQuery(_Query):
    """``GET /api/workers/{worker_id}/tasks``."""

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE), Number] = 100
    """How many at most."""


class LogQuery(_Query):
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
    follow: Annotated[bool, BeforeValidator(_truth)] = False
    """Server-sent events, until the end."""


class StreamQuery(_Query):
    """``GET /telemetry/stream``."""

    worker_id: Annotated[
        frozenset[Annotated[str, _shown(pattern=_WHOLE_WORKER_ID), AfterValidator(_worker_id)]],
        Field(max_length=MAX_NAMED_WORKERS),
        BeforeValidator(_names),
    ] = frozenset()
    """Only these workers, repeated or with commas between; if there is none, all."""
    fields: Annotated[Literal["all", "summary"], Once] = "all"
    """The whole record of each, or a short form."""


class NoQuery(_Query):
    """The other paths of tasks take no query."""


def query_of(req: falcon.Request, model: type[Model]) -> Model:
    """The checked query of a request. Raises ``InvalidRequest``."""
    return validated(model, req.params)


def log_query_of(req: falcon.Request) -> LogQuery:
    """The same for a log, where not everything goes together."""
    query = query_of(req, LogQuery)
    errors = []
    if query.tail is not None and query.offset is not None:
        errors.append(FieldError("tail", "cannot be had together with offset"))
    if query.follow and query.limit is not None:
        errors.append(FieldError("limit", "cannot be had together with follow"))
    if query.follow and query.format is not None:
        errors.append(FieldError("format", "cannot be had together with follow, which answers server-sent events"))
    if errors:
        raise InvalidRequest(errors)
    return query


def last_event_of(req: falcon.Request) -> tuple[int, int] | None:
    """Attempt and offset of the ``Last-Event-ID`` with which a reader of server-sent events comes back."""
    header = req.get_header("Last-Event-ID")
    if not header:
        return None
    match = _EVENT_ID.fullmatch(header)
    if match is None:
        raise InvalidRequest([FieldError("Last-Event-ID", "must be that of an event: <attempt>-<offset>")])
    return int(match[1]), int(match[2])


def check_task_id(task_id: str) -> None:
    """Raise ``UnknownTask`` for what cannot be the id of a task, so that the store need not cope with it."""
    if not _TASK_ID.fullmatch(task_id):
        raise UnknownTask(task_id)


def check_worker_id(worker_id: str) -> None:
    """Raise ``UnknownWorker`` for what cannot be the id of a worker."""
    if not is_worker_id(worker_id):
        raise UnknownWorker(worker_id)
