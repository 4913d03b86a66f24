"""A client of the master's REST API. Every failure is one of ``master.console.errors``."""

import contextlib
import http
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import requests
from requests.auth import AuthBase
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ProtocolError

from fleetpulse.master.console.connection import TokenSource
from fleetpulse.master.console.errors import ConsoleError, UnknownId, Unreachable
from fleetpulse.proto.listeners import is_loopback

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 30.0
_SILENCE_SECONDS = 50.0
"""A stream may be silent for this long. The master sends something every 15 seconds."""

_CHUNK_BYTES = 64 * 1024
PAGE_SIZE = 1000
_PROBLEM = "application/problem+json"
_TOKEN_HINT = "set FLEETPULSE_TOKEN, or FLEETPULSE_TOKEN_FILE, to one"  # nosec B105 # no secret

Query = Mapping[str, Any]


class Page(NamedTuple):
    """One page of a list, and the URLs of the pages around it."""

    items: list[dict[str, Any]]
    next: str | None
    previous: str | None


class MasterClient:
    """Talks to one master. For one thread at a time, except ``interrupt``."""

    def __init__(self, url: str, token: TokenSource = lambda: None) -> None:
        """``url`` has no slash at its end."""
        self.url = url
        self._token = token
        self._session = requests.Session()
        self._session.auth = _BearerAuth(token)
        self._session.headers["User-Agent"] = "fleetpulse"
        # Requests to this machine bypass the proxies that the environment names.
        host = urlsplit(url).hostname or ""
        self._proxies = {"no_proxy": host} if is_loopback(host) else None
        self._clock_offset_seconds = 0.0
        self._streams: set[requests.Response] = set()

    def clone(self) -> "MasterClient":
        """Returns a client of the same master, for another thread."""
        return MasterClient(self.url, self._token)

    def now(self) -> float:
        """Unix seconds by the master's clock, according to its last answer."""
        return time.time() + self._clock_offset_seconds

    def get(self, path: str, query: Query | None = None, *, timeout: float = _ANSWER_SECONDS) -> Any:
        """Returns the JSON at a path; ``None`` when there is no content."""
        limits = min(_CONNECT_SECONDS, timeout), timeout
        return self._json(self._request("GET", path, params=query, timeout=limits))

    def get_dict(self, path: str, query: Query | None = None) -> dict[str, Any]:
        """Returns the JSON object at a path."""
        return self._object(self.get(path, query))

    def get_list(self, path: str, query: Query | None = None) -> list[dict[str, Any]]:
        """Returns the JSON array of objects at a path."""
        return self._objects(self.get(path, query))

    def items(self, path: str, query: Query, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yields the items of a list, page by page, ``limit`` at most."""
        page = self.page(path, {**query, "limit": min(limit or PAGE_SIZE, PAGE_SIZE)})
        yield from itertools.islice(self.rest(page), limit)

    def rest(self, page: Page) -> Iterator[dict[str, Any]]:
        """Yields the items of a page and of all pages after it."""
        yield from page.items
        while page.next is not None:
            page = self.page(page.next)
            yield from page.items

    def page(self, url: str, query: Query | None = None) -> Page:
        """Returns one page. ``url``: a path, or the URL of a neighbour of another page."""
        response = self._request("GET", url, params=query)
        links = {name: urljoin(response.url, link["url"]) for name, link in response.links.items()}
        return Page(self._objects(self._json(response)), links.get("next"), links.get("prev"))

    def post(self, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Returns the JSON object that answers a POST."""
        return self._object(self._json(self._request("POST", path, json=body, headers=headers)))

    def delete(self, path: str) -> Any:
        """Returns the JSON that answers a DELETE; ``None`` when there is no content."""
        return self._json(self._request("DELETE", path))

    @contextlib.contextmanager
    def stream(
        self, path: str, query: Query | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[requests.Response]:
        """Opens a response whose body is read with ``chunks``."""
        with self._request(
            "GET", path, params=query, headers=headers, stream=True, timeout=(_CONNECT_SECONDS, _SILENCE_SECONDS)
        ) as response:
            self._streams.add(response)
            try:
                yield response
            finally:
                self._streams.discard(response)

    def chunks(self, response: requests.Response) -> Iterator[bytes]:
        """Yields the bytes of a stream as they arrive."""
        with self._connection_errors():
            while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
                yield chunk

    def interrupt(self) -> None:
        """Ends the streams that another thread reads, as if the master had ended them."""
        for response in list(self._streams):
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                response.raw.shutdown()

    def close(self) -> None:
        """Closes the connections."""
        self._session.close()

    def _request(self, method: str, path: str, **arguments: Any) -> requests.Response:
        url = path if path.startswith(self.url) else self.url + path
        arguments.setdefault("timeout", (_CONNECT_SECONDS, _ANSWER_SECONDS))
        with self._connection_errors():
            response = self._session.request(method, url, allow_redirects=False, proxies=self._proxies, **arguments)
            self._adjust_clock(response.headers.get("Date"))
            try:
                _raise_for_status(self.url, response)
            except BaseException:
                response.close()
                raise
            return response

    @contextlib.contextmanager
    def _connection_errors(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise  # of stdout
        except (requests.RequestException, OSError, HTTPError) as error:
            raise _unreachable(self.url, error) from error

    def _adjust_clock(self, date: str | None) -> None:
        with contextlib.suppress(TypeError, ValueError):
            offset = parsedate_to_datetime(date or "").timestamp() - time.time()
            # The header has whole seconds: a smaller offset means nothing.
            self._clock_offset_seconds = 0.0 if abs(offset) < 2.0 else offset

    def _json(self, response: requests.Response) -> Any:
        if response.status_code == http.HTTPStatus.NO_CONTENT:
            return None
        try:
            return json.loads(response.content)
        except ValueError:
            raise not_a_master(self.url, "its answer is not JSON") from None

    def _object(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise not_a_master(self.url, "its JSON does not have the shape of a master's")
        return value

    def _objects(self, value: Any) -> list[dict[str, Any]]:
        if not isinstance(value, list):
            raise not_a_master(self.url, "its JSON does not have the shape of a master's")
        return [self._object(item) for item in value]


class _BearerAuth(AuthBase):
    """Sends the token. Without a token it sends nothing; requests itself would look into ~/.netrc."""

    def __init__(self, token: TokenSource) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if token := self._token():
            request.headers["Authorization"] = f"Bearer {token}"
        return request


def path_segment(given: str, kind: str) -> str:
    """Quotes an id as one segment of a path. Raises ``UnknownId`` for what cannot be an id."""
    if given.strip(".") == "" or not given.isprintable():
        raise UnknownId(f"no {kind} has the id {given!r}")
    return quote(given, safe="")


def not_a_master(url: str, reason: str) -> Unreachable:
    """The error for an address where something else answers."""
    return Unreachable(f"{url} is not a FleetPulse master: {reason}. Check --url or FLEETPULSE_URL")


def _unreachable(url: str, error: BaseException) -> Unreachable:
    causes = _causes(error)
    return Unreachable(
        f"cannot reach the master at {url}: {_reason(causes)}. "
        "`fleetpulse up` starts one on this machine; --url or FLEETPULSE_URL says where another one is",
        was_sent=not any(isinstance(cause, NewConnectionError | ConnectTimeoutError) for cause in causes),
    )


def _raise_for_status(url: str, response: requests.Response) -> None:
    """Raises the error for every status that is not a success."""
    status = response.status_code
    if status < http.HTTPStatus.MULTIPLE_CHOICES:
        return
    if status < http.HTTPStatus.BAD_REQUEST:
        raise not_a_master(url, f"it redirects to {response.headers.get('Location', 'nowhere')}")
    if status == http.HTTPStatus.UNAUTHORIZED:
        raise ConsoleError(f"the master at {url} requires a valid token: {_TOKEN_HINT}")
    if status == http.HTTPStatus.FORBIDDEN:
        raise ConsoleError(f"this token may not do that at {url}: {_TOKEN_HINT} that may")
    detail = _problem_detail(response)
    if detail is None:
        raise not_a_master(url, f"it answered {status} {response.reason or ''}".rstrip())
    if status == http.HTTPStatus.NOT_FOUND:
        raise UnknownId(detail)
    if status in (http.HTTPStatus.SERVICE_UNAVAILABLE, http.HTTPStatus.TOO_MANY_REQUESTS):
        raise ConsoleError(f"{detail}; try again in {response.headers.get('Retry-After', 'some')} seconds")
    if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
        raise ConsoleError(f"the master failed: {detail}; its log says more")
    raise ConsoleError(detail)


def _problem_detail(response: requests.Response) -> str | None:
    """The text of a problem document; ``None`` if the response is not one."""
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
    """An exception and its causes, the innermost last."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        first = cause.args[0] if cause.args else None
        candidates = (getattr(cause, "reason", None), first, cause.__cause__, cause.__context__)
        cause = next((one for one in candidates if isinstance(one, BaseException)), None)
    return causes


def _reason(causes: Sequence[BaseException]) -> str:
    """The innermost cause in a few words."""
    if any(isinstance(cause, requests.Timeout) for cause in causes):
        return "it does not answer in time"
    if any(isinstance(one, ProtocolError) for one in causes) and not any(
        isinstance(one, OSError) for one in causes[1:]
    ):
        return "the connection broke off"
    for cause in reversed(causes):
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    last = causes[-1]
    return str(last).rpartition(": ")[2] if isinstance(last, HTTPError) else str(last) or type(last).__name__
