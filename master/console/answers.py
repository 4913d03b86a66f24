"""What came back: JSON of a master, or the error that a command ends with."""

import http
import json
from collections.abc import Sequence
from typing import Any

import requests
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ProtocolError

from fleetpulse.master.console.errors import ConsoleError, UnknownId, Unreachable

_PROBLEM = "application/problem+json"
_TOKEN_HINT = "set FLEETPULSE_TOKEN, or FLEETPULSE_TOKEN_FILE, to one"  # nosec B105 # no secret


def unreachable(url: str, error: BaseException) -> Unreachable:
    """Why nobody answered, and what to do."""
    chain = _causes(error)
    return Unreachable(
        f"cannot reach the master at {url}: {_reason(chain)}. "
        "`fleetpulse up` starts one on this machine; --url or FLEETPULSE_URL says where another one is",
        was_sent=not any(isinstance(one, NewConnectionError | ConnectTimeoutError) for one in chain),
    )


def no_master(url: str, what: str) -> Unreachable:
    """Somebody answers who is no master."""
    return Unreachable(f"{url} is not a FleetPulse master: {what}. Check --url or FLEETPULSE_URL")


def check(url: str, response: requests.Response) -> None:
    """Raise what an answer that is not a success means."""
    status = response.status_code
    if status < http.HTTPStatus.MULTIPLE_CHOICES:
        return
    if status < http.HTTPStatus.BAD_REQUEST:
        raise no_master(url, f"it sends one on to {response.headers.get('Location', 'nowhere')}")
    if status == http.HTTPStatus.UNAUTHORIZED:
        raise ConsoleError(f"the master at {url} wants a token that it knows: {_TOKEN_HINT}")
    if status == http.HTTPStatus.FORBIDDEN:
        raise ConsoleError(f"this token may not do that at {url}: {_TOKEN_HINT} that may")
    detail = _detail(response)
    if detail is None:
        raise no_master(url, f"it answered {status} {response.reason or ''}".rstrip())
    if status == http.HTTPStatus.NOT_FOUND:
        raise UnknownId(detail)
    if status in (http.HTTPStatus.SERVICE_UNAVAILABLE, http.HTTPStatus.TOO_MANY_REQUESTS):
        raise ConsoleError(f"{detail}; try again in {response.headers.get('Retry-After', 'some')} seconds")
    if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
        raise ConsoleError(f"the master failed: {detail}; its log says more")
    raise ConsoleError(detail)


def payload(url: str, response: requests.Response) -> Any:
    """The JSON of a success. ``None`` where there is no content."""
    if response.status_code == http.HTTPStatus.NO_CONTENT:
        return None
    try:
        return json.loads(response.content)
    except ValueError:
        raise no_master(url, "what it answered is no JSON") from None


def _detail(response: requests.Response) -> str | None:
    """What a problem says; ``None`` if it is none of a master's."""
    if not response.headers.get("Content-Type", "").startswith(_PROBLEM):
        return None
    try:
        problem = json.loads(response.content)
    except ValueError:
        return None
    if not isinstance(problem, dict):
        return None
    return str(problem.get("detail") or problem.get("title") or f"status {response.status_code}")


def _causes(error: BaseException) -> list[BaseException]:
    """An exception and what is within it, the innermost last."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        first = following.args[0] if following.args else None
        candidates = (getattr(following, "reason", None), first, following.__cause__, following.__context__)
        following = next((one for one in candidates if isinstance(one, BaseException)), None)
    return chain


def _reason(chain: Sequence[BaseException]) -> str:
    """The innermost cause, in a few words."""
    if any(isinstance(one, requests.Timeout) for one in chain):
        return "it does not answer in time"
    if any(isinstance(one, ProtocolError) for one in chain) and not any(isinstance(one, OSError) for one in chain[1:]):
        return "the connection broke off"
    for one in reversed(chain):
        if isinstance(one, OSError) and one.strerror:
            return one.strerror
    last = chain[-1]
    return str(last).rpartition(": ")[2] if isinstance(last, HTTPError) else str(last) or type(last).__name__
