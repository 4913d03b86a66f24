"""A client of a master's REST."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import requests
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError

from fleetpulse.master.console.answers import check, no_master, payload, unreachable
from fleetpulse.master.console.credentials import LOOPBACK, Token, no_token
from fleetpulse.master.console.errors import UnknownId

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
SILENCE_SECONDS = 50.0
"""For how long a stream may say nothing; the master says something every 15 seconds."""

Query = Mapping[str, Any]


class Page(NamedTuple):
    """The array of one page, and the addresses of those before and after it in the list, where there are any."""

    items: list[dict[str, Any]]
    next: str | None
    previous: str | None


class MasterClient:
    """One master. Its methods raise the errors of ``master.console.errors``.

    For one thread at a time, but for ``interrupt``.
    """

    def __init__(self, url: str, token: Token = no_token) -> None:
        """``url`` without a slash at its end."""
        self.url = url
        self._token = token
        self._session = requests.Session()
        self._session.auth = _Bearer(token)
        self._session.headers["User-Agent"] = "fleetpulse"
        # What is meant for this machine goes through no proxy that the environment names.
        host = urlsplit(url).hostname or ""
        self._proxies = {"no_proxy": host} if host in LOOPBACK else None
        self._clock_offset_seconds = 0.0
        self._streams: set[requests.Response] = set()

    def another(self) -> "MasterClient":
        """One like this, for another thread."""
        return MasterClient(self.url, self._token)

    def now(self) -> float:
        """Unix seconds by the master's clock, as far as its last answer told it."""
        return time.time() + self._clock_offset_seconds

    def get(self, path: str, query: Query | None = None, *, timeout: float = ANSWER_SECONDS) -> Any:
        """The JSON of an answer."""
        limits = min(CONNECT_SECONDS, timeout), timeout
        return payload(self.url, self._request("GET", path, params=query, timeout=limits))

    def get_dict(self, path: str, query: Query | None = None) -> dict[str, Any]:
        """The same, which must be an object."""
        answer: dict[str, Any] = self._must_be(dict, self.get(path, query))
        return answer

    def get_list(self, path: str, query: Query | None = None) -> list[dict[str, Any]]:
        """The same, which must be an array of objects."""
        return self._objects(self.get(path, query))

    def pages(self, path: str, query: Query | None = None) -> Iterator[list[dict[str, Any]]]:
        """The array of one page after the other."""
        address: str | None = path
        while address is not None:
            page = self.page(address, query)
            yield page.items
            address, query = page.next, None

    def page(self, address: str, query: Query | None = None) -> Page:
        """One page: of a path, or at an address that another page told."""
        response = self._request("GET", address, params=query)
        items = self._objects(payload(self.url, response))
        links = {name: urljoin(response.url, link["url"]) for name, link in response.links.items()}
        return Page(items, links.get("next"), links.get("prev"))

    def post(self, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The JSON of the answer, an object."""
        response = self._request("POST", path, json=body, headers=headers)
        answer: dict[str, Any] = self._must_be(dict, payload(self.url, response))
        return answer

    def delete(self, path: str) -> Any:
        """The JSON of the answer; ``None`` where there is none."""
        return payload(self.url, self._request("DELETE", path))

    @contextlib.contextmanager
    def stream(
        self, path: str, query: Query | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[requests.Response]:
        """An answer that is read as it comes."""
        with self._request(
            "GET", path, params=query, headers=headers, stream=True, timeout=(CONNECT_SECONDS, SILENCE_SECONDS)
        ) as response:
            self._streams.add(response)
            try:
                yield response
            finally:
                self._streams.discard(response)

    def interrupt(self) -> None:
        """End the streams that another thread reads. They end there as if the master had ended them."""
        for response in list(self._streams):
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                response.raw.shutdown()

    def pieces(self, response: requests.Response) -> Iterator[bytes]:
        """The bytes of a stream, each piece as soon as it is there."""
        with self._told():
            while piece := response.raw.read1(64 * 1024, decode_content=True):
                yield piece

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _request(self, method: str, path: str, **arguments: Any) -> requests.Response:
        # A path of REST; a page names its successor by its whole address.
        address = path if path.startswith(self.url) else self.url + path
        arguments.setdefault("timeout", (CONNECT_SECONDS, ANSWER_SECONDS))
        with self._told():
            response = self._session.request(method, address, allow_redirects=False, proxies=self._proxies, **arguments)
            self._note_time(response.headers.get("Date"))
            try:
                check(self.url, response)
            except BaseException:
                response.close()
                raise
            return response

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise  # of stdout
        except (requests.RequestException, OSError, HTTPError) as error:
            raise unreachable(self.url, error) from error

    def _note_time(self, date: str | None) -> None:
        with contextlib.suppress(TypeError, ValueError):
            offset = parsedate_to_datetime(date or "").timestamp() - time.time()
            # The header knows whole seconds, so what is less is no difference of clocks.
            self._clock_offset_seconds = 0.0 if abs(offset) < 2.0 else offset

    def _objects(self, value: Any) -> list[dict[str, Any]]:
        return [self._must_be(dict, item) for item in self._must_be(list, value)]

    def _must_be(self, kind: type[Any], value: Any) -> Any:
        if not isinstance(value, kind):
            raise no_master(self.url, "it answered JSON that is none of a master's")
        return value


class _Bearer(AuthBase):
    """Sends the token; without one nothing, for requests would look into ~/.netrc."""

    def __init__(self, token: Token) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if token := self._token():
            request.headers["Authorization"] = f"Bearer {token}"
        return request


def segment(given: str, kind: str) -> str:
    """An id as a part of a path. Raises ``UnknownId`` for what could never be one."""
    if given.strip(".") == "" or not given.isprintable():
        raise UnknownId(f"no {kind} has the id {given!r}")
    return quote(given, safe="")
