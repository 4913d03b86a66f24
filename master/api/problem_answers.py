"""The problems that requests come to, as a type, and what each status says."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from msgspec import UNSET, UnsetType

from fleetpulse.master.api.answers import ResponseModel


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


TEXT_BY_STATUS: Mapping[int, str] = MappingProxyType(
    {
        400: "the request is malformed, or its body is not JSON, broke off or is nested too deep",
        401: "a token is wanted, or the one that was sent is unknown, expired or revoked",
        403: "the token's role is too low, or a page of another site asks",
        404: "there is no such worker, task or attempt",
        408: "the head or the body was not complete in time",
        409: "the worker is active, the task has ended, or the idempotency key was used for another request",
        410: "the log has been deleted, after the time for which logs are kept",
        411: "there is no `Content-Length`, and the body is not chunked",
        413: "the body is over 1 MiB",
        414: "the first line of the request has more than 4,094 bytes",
        415: "the body is not `application/json`",
        421: "while no token was made: the master does not go by the name that `Host` says",
        422: "the body, the query or a header says something wrong; `errors` lists all of it",
        429: "this client asks too often, or has too many connections or readers; `Retry-After` says when to come back",
        431: "a header has more than 8,190 bytes, all together have more than 64 KiB, or there are more than 100",
        500: "a bug; the master's log has the traceback",
        503: "the master cannot do this now; `Retry-After` says when to come back",
    }
)
