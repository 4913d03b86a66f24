"""The table of routes: every path that a master serves, who may use it, what it takes, what it answers.

``master.api.operations.add_routes`` adds it to the app, and refuses a path without a row, a row without a resource, and
a resource with other methods. The reference is made of it, and access is checked by it. To add a path:

1. Write its resource, with ``on_get`` and the like, and ``on_head = on_get`` where there is a ``GET``.
2. Add a row here. Queries and bodies are pydantic types (``master.api.queries``), answers ``msgspec`` types
   (``master.api.answers``); one that is not JSON is ``Answer(200, "…", {HTML: str})``. A new field in braces gets a
   line in ``PATH_FIELDS``.
3. Add the resource under its path in ``master.app.create_wsgi``.
4. Add a row and a curl line to ``docs/rest.md``. Tests hold the two to each other, and real answers to the types.
"""

from typing import Any

from fleetpulse.master.access.tokens import Role
from fleetpulse.master.api.access import SessionInfo, SignIn
from fleetpulse.master.api.audit import AuditListQuery
from fleetpulse.master.api.discovery import TargetGroup, TargetsQuery
from fleetpulse.master.api.history import History, HistoryQuery
from fleetpulse.master.api.operations import EVENTS, HTML, JSON, TEXT, Answer, Body, Header, Operation, Route, answer
from fleetpulse.master.api.page import Overview
from fleetpulse.master.api.queries import (
    EVENT_ID_PATTERN,
    AttemptListQuery,
    LogQuery,
    NoQuery,
    StreamQuery,
    TaskListQuery,
)
from fleetpulse.master.api.task_answers import Assignment, DrainState, LogPart, Task, TaskDetails
from fleetpulse.master.api.tasks import IDEMPOTENCY_KEY_PATTERN, DrainRequest, UndrainRequest
from fleetpulse.master.api.worker_answers import (
    Health,
    WorkerDetails,
    WorkerMetrics,
    WorkerRecord,
    WorkerSummary,
)
from fleetpulse.master.audit.entry import AuditRecord
from fleetpulse.master.tasks.request import TaskRequest

OPENMETRICS = "application/openmetrics-text"

_BODY = (400, 408, 413, 415, 422)
"""The problems of a body."""

_ETAG = "to be sent back in `If-None-Match`"
_HELD = Header("If-None-Match", "the `ETag` of the answer that the client has")
_NOT_MODIFIED = Answer(304, "what the client has still holds", headers={"ETag": _ETAG})


def _live(name: str, summary: str, kind: Any, *problems: int) -> Operation:
    """Reads the live table."""
    answers = answer(kind, summary, ETag=_ETAG), _NOT_MODIFIED
    return Operation("GET", name, summary, Role.READ, answers, problems, headers=(_HELD,))


def _fixed(name: str, summary: str, media_type: str, kind: Any) -> Operation:
    """Never changes while the master runs."""
    answers = Answer(200, summary, {media_type: kind}, {"ETag": _ETAG}), _NOT_MODIFIED
    return Operation("GET", name, summary, Role.READ, answers, headers=(_HELD,))


_AUDIT = """Every request that could change something, every refusal, and every worker that came or said goodbye. A page
that looked through much of the trail ends before it is full, and may be empty: go on while there is a `Link` with
`rel="next"`. That with `rel="prev"` gives, the oldest first, what came meanwhile, and one for what comes then: who goes
from one to the next loses nothing and gets nothing twice."""

_AUDIT_LINK = "`next`: what is older, unless there is nothing; `prev`: what is written after it, not with `cursor`"

MASTER = (
    Route("/health", "Master", (
        Operation("GET", "get_health", "whether every part of the master works", Role.OPEN, (
            answer(Health, "all is well"),
            answer(Health, "something is not, and what", 503),
        )),
    )),
    Route("/openapi.json", "Master", (
        _fixed("get_openapi", "this reference for programs, as OpenAPI 3.1", JSON, dict[str, Any]),
    )),
    Route("/docs", "Master", (
        _fixed("get_docs", "this reference for people", HTML, str),
    )),
    Route("/api/audit", "Master", (
        Operation("GET", "list_audit", "who changed what, and who was refused, newest first, in pages", Role.ADMIN, (
            answer(list[AuditRecord], "one page, perhaps not full", Link=_AUDIT_LINK),
        ), (422, 503), query=AuditListQuery, text=_AUDIT),
    )),
)  # fmt: skip

_STREAM = """First `reset` and the present state of the fleet in pieces (`snapshot`), then every half second at most the
workers that changed (`update`) or left (`removed`); at last `problem`, when the master stops. It has no end of its own.
Who comes back with the last `id` gets what changed since."""

WORKERS = (
    Route("/telemetry", "Workers", (
        _live("get_telemetry", "map of worker id to record", dict[str, WorkerRecord]),
    )),
    Route("/telemetry/stream", "Workers", (
        Operation("GET", "stream_telemetry", "the records as they change: server-sent events", Role.READ, (
            Answer(200, "its events", {EVENTS: str}),
        ), (422, 503), query=StreamQuery, text=_STREAM,
            headers=(Header("Last-Event-ID", "where to go on: the last `id` seen, with the same query"),)),
    )),
    Route("/telemetry/{worker_id}", "Workers", (
        _live("get_worker_telemetry", "one record", WorkerRecord, 404),
    )),
    Route("/telemetry/{worker_id}/history", "Workers", (
        Operation("GET", "get_worker_history", "how one worker's readings went", Role.READ, (
            answer(History, "its fields, a value a step"),
        ), (404, 422, 503), query=HistoryQuery),
    )),
    Route("/workers", "Workers", (
        _live("get_workers", "map of worker id to a short form", dict[str, WorkerSummary]),
    )),
    Route("/api/workers", "Workers", (
        _live("list_workers", "array of details, each with its record", list[WorkerDetails]),
    )),
    Route("/api/workers/{worker_id}", "Workers", (
        _live("get_worker", "one worker's details", WorkerDetails, 404),
        Operation("DELETE", "forget_worker", "forget a worker that is gone", Role.ADMIN, (
            Answer(204, "it is forgotten"),
        ), (404, 409), text="An active worker cannot be forgotten: that is a 409."),
    )),
    Route("/api/workers/{worker_id}/metrics", "Workers", (
        _live("get_worker_metrics", "one worker's resource readings", WorkerMetrics, 404),
    )),
    Route("/api/workers/{worker_id}/drain", "Workers", (
        Operation("POST", "drain_worker", "give the worker no new tasks; those that it has run on", Role.ADMIN, (
            answer(DrainState, "it gets none"),
        ), (*_BODY, 404, 503), query=NoQuery, body=Body(DrainRequest, False, example={"reason": "new disk"}),
            text="A drain outlives restarts of the master and of the worker."),
    )),
    Route("/api/workers/{worker_id}/undrain", "Workers", (
        Operation("POST", "undrain_worker", "give it tasks again", Role.ADMIN, (
            answer(DrainState, "it gets tasks"),
        ), (*_BODY, 404, 503), query=NoQuery, body=Body(UndrainRequest, False)),
    )),
    Route("/api/workers/{worker_id}/tasks", "Workers", (
        Operation("GET", "list_worker_tasks", "array of what was assigned to the worker, newest first", Role.READ, (
            answer(list[Assignment], "attempts, each with something of its task"),
        ), (404, 422, 503), query=AttemptListQuery),
    )),
)  # fmt: skip

_LOGS = """As JSON, 1 MiB at most; as text, the bytes as they are, all of them unless there is a limit; or with
`follow=true` as server-sent events (`status`, `attempt`, pieces of the log, and at last `end` or `problem`), from
before the container starts, and over retries unless an `attempt` is named."""

TASKS = (
    Route("/api/tasks", "Tasks", (
        Operation("POST", "submit_task", "submit a task", Role.SUBMIT, (
            answer(Task, "it is on disk", 201, Location="the path of the task"),
            answer(TaskDetails, "the task that the same request with this key made", Location="the path of the task"),
        ), (*_BODY, 409, 411, 503), query=NoQuery,
            body=Body(TaskRequest, example={"docker_image": "busybox", "command": ["echo", "hi"]}),
            headers=(Header("Idempotency-Key", "makes it safe to try again", IDEMPOTENCY_KEY_PATTERN),),
            text="A task that no worker can run now is accepted, and waits."),
        Operation("GET", "list_tasks", "array of tasks, newest first, in pages", Role.READ, (
            answer(list[Task], "one page", Link="the next page, `<…>; rel=\"next\"`; absent on the last one"),
        ), (422, 503), query=TaskListQuery),
    )),
    Route("/api/tasks/{task_id}", "Tasks", (
        Operation("GET", "get_task", "one task with its attempts and its events", Role.READ, (
            answer(TaskDetails, "the task"),
        ), (404, 422, 503), query=NoQuery),
        Operation("DELETE", "cancel_task", "cancel it", Role.SUBMIT, (
            answer(TaskDetails, "it is cancelled, or will be when its container is gone", 202),
        ), (404, 409, 422, 503), query=NoQuery, text="409 when it has ended already."),
    )),
    Route("/api/tasks/{task_id}/logs", "Tasks", (
        Operation("GET", "get_task_logs", "its output: JSON, the raw bytes, or as it comes", Role.READ, (
            Answer(200, "a part of the log, or its events", {JSON: LogPart, TEXT: str, EVENTS: str}, {
                "X-Log-Attempt": "of text: which attempt's log it is",
                "X-Log-Offset": "of text: its first byte",
                "X-Log-Next-Offset": "of text: where to go on",
                "X-Log-Size": "of text: bytes that there are",
                "X-Log-Complete": "of text: `true` when nothing will come after this",
            }),
        ), (404, 410, 422, 503), query=LogQuery, text=_LOGS,
            headers=(Header("Last-Event-ID", "where to go on with events: the last `id` seen", EVENT_ID_PATTERN),)),
    )),
)  # fmt: skip

PROMETHEUS = (
    Route("/metrics", "Prometheus", (
        Operation("GET", "get_metrics", "Prometheus text, or OpenMetrics where `Accept` asks for it", Role.READ, (
            Answer(200, "the fleet's series and the master's own", {TEXT: str, OPENMETRICS: str}),
        )),
    )),
    Route("/sd/targets", "Prometheus", (
        Operation("GET", "get_targets", "the active workers as scrape targets", Role.READ, (
            answer(list[TargetGroup], "as Prometheus' HTTP service discovery has it"),
        ), (422,), query=TargetsQuery),
    )),
)  # fmt: skip

_SESSION_COOKIE = "`fleetpulse_session`: for `SameSite` requests alone, and for no script"

PAGE = (
    Route("/", "Page", (
        Operation("GET", "get_page", "the page for people: the fleet, tasks and logs, live", Role.OPEN, (
            Answer(200, "the page", {HTML: str}, {"ETag": _ETAG}), _NOT_MODIFIED,
        ), headers=(_HELD,)),
    )),
    Route("/static/{page_version}/{page_file}", "Page", (
        Operation("GET", "get_page_file", "a file of the page; its address changes with its content", Role.OPEN, (
            Answer(200, "the file", {"text/javascript": str, "text/css": str, "image/svg+xml": str}),
        ), (404,)),
    )),
    Route("/api/session", "Page", (
        Operation("GET", "get_session", "whose token or session the request has", Role.OPEN, (
            answer(SessionInfo, "the name, its role, and how it was shown"),
        )),
        Operation("POST", "sign_in", "begin a session of the page with a token", Role.OPEN, (
            answer(SessionInfo, "the session's cookie is set", Set_Cookie=_SESSION_COOKIE),
        ), (*_BODY, 411), query=NoQuery, body=Body(SignIn, example={"token": "fp_…"})),
        Operation("DELETE", "sign_out", "end the session", Role.OPEN, (
            Answer(204, "there is none any more"),
        )),
    )),
    Route("/api/overview", "Page", (
        Operation("GET", "get_overview", "the fleet in numbers: workers by state, tasks by status", Role.READ, (
            answer(Overview, "as it is now"),
        )),
    )),
)  # fmt: skip

ROUTES: tuple[Route, ...] = (*MASTER, *WORKERS, *TASKS, *PROMETHEUS, *PAGE)
