"""Errors as RFC 9457 problems: the master's own by one table, Falcon's as they are, anything else as a logged 500."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import falcon
import orjson

from fleetpulse.master import errors
from fleetpulse.master.api.invalid import FieldError, InvalidRequest

_LOGGER = logging.getLogger(__name__)

PROBLEM_TYPE = "application/problem+json"

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
    errors.TaskAlreadyFinished: 409,
    errors.IdempotencyConflict: 409,
    errors.LogExpired: 410,
    errors.InvalidCursor: 422,
    errors.HistoryOff: 404,
    errors.PrometheusUnavailable: 503,
    errors.AuditUnavailable: 503,
    errors.StoreUnavailable: 503,
}

POLICY_RULE = "the task policy's rule"
"""Stands before the rule that a submit breaks."""

RETRY_AFTER_SECONDS = 5
"""What a 503 asks for: by then another web process may be there, or the store."""


class Rejection(falcon.HTTPError):
    """A request past a limit. ``reason`` is one of ``instruments.http.REASONS``, which the request's context keeps.

    The description never repeats what was sent.
    """

    def __init__(self, status: int, reason: str, description: str, retry_after_seconds: int | None = None) -> None:
        headers = None if retry_after_seconds is None else {"Retry-After": str(retry_after_seconds)}
        super().__init__(status, description=description, headers=headers)
        self.reason = reason


def install(app: "falcon.App[Any, Any]", note_rejection: Callable[[str], None] = lambda _reason: None) -> None:
    """Make every error that leaves the app a problem, and have the reason of every rejection noted."""
    app.set_error_serializer(partial(_serialize, note_rejection))
    app.add_error_handler(Exception, _unexpected)
    app.add_error_handler(errors.FleetPulseError, _domain)


def _domain(_req: falcon.Request, _resp: falcon.Response, error: errors.FleetPulseError, _params: Any) -> None:
    if isinstance(error, errors.TaskRefused):
        raise InvalidRequest([FieldError(r.field, f"{r.message} ({POLICY_RULE} {r.rule})") for r in error.refusals])
    status = STATUS_BY_ERROR.get(type(error), 500)
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status == 503 else None
    raise falcon.HTTPError(status, description=str(error), headers=headers) from error


def _unexpected(req: falcon.Request, _resp: falcon.Response, error: Exception, _params: Any) -> None:
    if isinstance(error, falcon.HTTPError | falcon.HTTPStatus):
        raise error
    _LOGGER.error("%s %s failed", req.method, req.path, exc_info=error)
    raise falcon.HTTPInternalServerError(description="the master failed on this request; its log says why") from error


def _serialize(
    note_rejection: Callable[[str], None], req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError
) -> None:
    status = error.status_code
    if isinstance(error, Rejection):
        req.context.rejection = error.reason
        note_rejection(error.reason)
    problem = {
        "type": "about:blank",
        "title": falcon.code_to_http_status(status).partition(" ")[2],
        "status": status,
        "detail": error.description or _DETAIL_BY_STATUS.get(status),
        "instance": req.path,
        "errors": error.errors if isinstance(error, InvalidRequest) else None,
    }
    resp.content_type = PROBLEM_TYPE
    resp.data = orjson.dumps({key: value for key, value in problem.items() if value is not None})


_DETAIL_BY_STATUS = {
    404: "nothing is served at this path; docs/rest.md lists what is",
    405: "this path does not take this method; the Allow header lists those that it takes",
}
