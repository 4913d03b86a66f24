"""Errors as RFC 9457 problems: the master's own by one table, Falcon's as they are, any other as a logged 500."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import falcon
from msgspec import UNSET, UnsetType

from fleetpulse.master import errors
from fleetpulse.master.api.answers import ResponseModel, encoded

_LOGGER = logging.getLogger(__name__)

PROBLEM_TYPE = "application/problem+json"
MAX_ERRORS = 100

POLICY_RULE = "the task policy's rule"
"""Stands before the name of the rule that a submit breaks."""

STATUS_BY_ERROR: dict[type[errors.FleetPulseError], int] = {
    errors.InvalidMessage: 400,
    errors.InvalidReading: 400,
    errors.UnknownWorker: 404,
    errors.WorkerStillActive: 409,
    errors.FleetFull: 503,
    errors.AccessEnded: 401,
    errors.MasterStopping: 503,
    errors.UnknownTask: 404,
    errors.TaskRefused: 422,
    errors.QuotaExceeded: 429,
    errors.TaskAlreadyFinished: 409,
    errors.IdempotencyConflict: 409,
    errors.LogExpired: 410,
    errors.InvalidCursor: 422,
    errors.HistoryOff: 404,
    errors.PrometheusUnavailable: 503,
    errors.AuditUnavailable: 503,
    errors.StoreUnavailable: 503,
}

TEXT_BY_STATUS: Mapping[int, str] = {
    400: "the request is malformed, or its body is not JSON, broke off or is nested too deep",
    401: "a token is wanted, or the one that was sent is unknown, expired or revoked",
    403: "the token's role is too low, or a page of another site asks",
    404: "there is no such worker, task or attempt",
    406: "`Accept` refuses every format of the answer",
    408: "the head or the body was not complete in time",
    409: "the worker is active, the task has ended, or the idempotency key was used for another request",
    410: "the log has been deleted, after the time for which logs are kept",
    411: "there is no `Content-Length`, and the body is not chunked",
    413: "the body is over 1 MiB, or that of a sign-in over 4 KiB",
    414: "the first line of the request has more than 4,094 bytes",
    415: "the body is not `application/json`",
    421: "while no token was made: the master does not go by the name that `Host` says",
    422: "the body, the query or a header says something wrong; `errors` lists all of it",
    429: "this client asks too often, has too many connections or readers, or too much is queued; `limit` names the "
    "limit, and `Retry-After` says when to come back",
    431: "a header has more than 8,190 bytes, all together have more than 64 KiB, or there are more than 100",
    500: "a bug; the master's log has the traceback",
    503: "the master cannot do this now; `Retry-After` says when to come back",
}
"""What each status means, for the reference."""


class FieldProblem(ResponseModel):
    """One thing that is wrong with a request."""

    field: str
    """A path such as `command[2]` or `env.PATH`, the name of a header, or `(body)`."""
    message: str
    value: Any | UnsetType = UNSET
    """What was sent; absent where nothing or more than one value was sent, and for secrets."""


class Problem(ResponseModel):
    """An error, as RFC 9457 has it."""

    type: Literal["about:blank"]
    title: str
    status: int
    detail: str
    instance: str = ""
    """The path that was asked; absent where the master did not come so far as to look at it."""
    errors: tuple[FieldProblem, ...] = ()
    """Of a 422: everything that is wrong, 100 at most."""
    limit: str = ""
    """Of a 429: the limit that is reached, as `fleetpulse_http_rejected_total` names it."""


class InvalidRequest(falcon.HTTPUnprocessableEntity):
    """A request that is wrong in one or more fields: a 422 whose problem lists all of them."""

    def __init__(self, found: Sequence[FieldProblem]) -> None:
        self.errors = tuple(found[:MAX_ERRORS])
        detail = "; ".join(f"{each.field} {each.message}" for each in found[:3])
        super().__init__(description=f"{detail}; and {len(found) - 3} more" if len(found) > 3 else detail)


class Rejection(falcon.HTTPError):
    """A request past a limit. ``reason``, one of ``instruments.REJECT_REASONS``, goes to ``req.context.rejection``.

    The description never repeats what was sent.
    """

    def __init__(self, status: int, reason: str, description: str, retry_after_seconds: int | None = None) -> None:
        headers = None if retry_after_seconds is None else {"Retry-After": str(retry_after_seconds)}
        super().__init__(status, description=description, headers=headers)
        self.reason = reason


def install(app: "falcon.App[Any, Any]", count_rejection: Callable[[str], None] = lambda _reason: None) -> None:
    """Make every error that leaves the app a problem. ``count_rejection`` gets the reason of every ``Rejection``."""
    app.set_error_serializer(partial(_serialize, count_rejection))
    app.add_error_handler(Exception, _unexpected)
    app.add_error_handler(errors.FleetPulseError, _domain)
    app.add_error_handler(errors.QuotaExceeded, _quota)


def _domain(_req: falcon.Request, _resp: falcon.Response, error: errors.FleetPulseError, _params: Any) -> None:
    if isinstance(error, errors.TaskRefused):
        raise InvalidRequest([FieldProblem(r.field, f"{r.message} ({POLICY_RULE} {r.rule})") for r in error.refusals])
    status = STATUS_BY_ERROR.get(type(error), 500)
    headers = {"Retry-After": str(errors.RETRY_AFTER_SECONDS)} if status == 503 else None
    raise falcon.HTTPError(status, description=str(error), headers=headers) from error


def _quota(_req: falcon.Request, _resp: falcon.Response, error: errors.QuotaExceeded, _params: Any) -> None:
    raise Rejection(429, error.limit, str(error), errors.RETRY_AFTER_SECONDS) from error


def _unexpected(req: falcon.Request, _resp: falcon.Response, error: Exception, _params: Any) -> None:
    if isinstance(error, falcon.HTTPError | falcon.HTTPStatus):
        raise error
    _LOGGER.error("%s %s failed", req.method, req.path, exc_info=error)
    raise falcon.HTTPInternalServerError(description="the master failed on this request; its log says why") from error


def _serialize(
    count_rejection: Callable[[str], None], req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError
) -> None:
    status = error.status_code
    if isinstance(error, Rejection):
        req.context.rejection = error.reason
        count_rejection(error.reason)
    title = falcon.code_to_http_status(status).partition(" ")[2]
    detail = error.description or _DETAIL_BY_STATUS.get(status, title)
    found = error.errors if isinstance(error, InvalidRequest) else ()
    resp.content_type = PROBLEM_TYPE
    limit = error.reason if isinstance(error, Rejection) and status == 429 else ""
    resp.data = encoded(Problem("about:blank", title, status, detail, req.path, found, limit))
    # Falcon keeps the error in a frame of this traceback: a cycle, which would keep the request's body for seconds.
    error.__traceback__ = None


_DETAIL_BY_STATUS = {
    404: "nothing is served at this path; docs/rest.md lists what is",
    405: "this path does not take this method; the Allow header lists those that it takes",
}
