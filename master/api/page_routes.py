"""The rows of the page in the table of routes. What answers them is in ``master.page``."""

from master.access.roles import Role
from master.api.operations import HTML, Answer, Header, Operation, Route, answer
from master.api.worker_answers import Count, Said


class WorkerCounts(Said):
    """The workers by state; one that drains is active or inactive as well."""

    active: Count
    inactive: Count
    draining: Count


class TaskCounts(Said):
    """The tasks in the store by status."""

    queued: Count
    pending: Count
    running: Count
    completed: Count
    failed: Count
    cancelled: Count


class Overview(Said):
    """The fleet in numbers."""

    workers: WorkerCounts
    tasks: TaskCounts


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
    Route("/api/overview", "Page", (
        Operation("GET", "get_overview", "the fleet in numbers: workers by state, tasks by status", Role.READ, (
            answer(Overview, "as it is now"),
        )),
    )),
)  # fmt: skip
