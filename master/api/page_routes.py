"""The rows of the page in the table of routes. What answers them is in ``master.page``."""

from typing import Literal

from fleetpulse.master.access.tokens import Role
from fleetpulse.master.api.answers import Count, ResponseModel
from fleetpulse.master.api.operations import HTML, Answer, Body, Header, Operation, Route, answer
from fleetpulse.master.api.queries import NoQuery
from fleetpulse.master.api.session import SignIn


class WorkerCounts(ResponseModel):
    """The workers by state; one that drains is active or inactive as well."""

    active: Count
    inactive: Count
    draining: Count


class TaskCounts(ResponseModel):
    """The tasks in the store by status."""

    queued: Count
    pending: Count
    running: Count
    completed: Count
    failed: Count
    cancelled: Count


class Overview(ResponseModel):
    """The fleet in numbers."""

    workers: WorkerCounts
    tasks: TaskCounts


class ClientIdentity(ResponseModel):
    """Who asks, and what they may do."""

    name: str
    role: Literal["read", "submit", "admin"]
    door: Literal["token", "session", "loopback"]
    """`loopback`: whoever is on the master's machine, because no token was made yet."""


_EXAMPLE = "fp_…"
_COOKIE = "`fleetpulse_session`: for `SameSite` requests alone, and for no script"
_FILES = ("text/javascript", "text/css", "image/svg+xml")
_ETAG = {"ETag": "to be sent back in `If-None-Match`"}

PAGE = (
    Route("/", "Page", (
        Operation("GET", "get_page", "the page for people: the fleet, tasks and logs, live", Role.OPEN, (
            Answer(200, "the page", {HTML: str}, _ETAG),
            Answer(304, "what the client has still holds", headers=_ETAG),
        ), headers=(Header("If-None-Match", "the `ETag` of the answer that the client has"),)),
    )),
    Route("/static/{page_version}/{page_file}", "Page", (
        Operation("GET", "get_page_file", "a file of the page; its address changes with its content", Role.OPEN, (
            Answer(200, "the file", dict.fromkeys(_FILES, str)),
        ), (404,)),
    )),
    Route("/api/session", "Page", (
        Operation("GET", "get_session", "who asks: whose token or session it is", Role.OPEN, (
            answer(ClientIdentity, "what the master knows of the asker"),
        )),
        Operation("POST", "sign_in", "begin a session of the page with a token", Role.OPEN, (
            answer(ClientIdentity, "the session's cookie is set", Set_Cookie=_COOKIE),
        ), (400, 408, 411, 413, 415, 422), query=NoQuery, body=Body(SignIn, example={"token": _EXAMPLE})),
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
