"""Streams that are open when that by which they were opened is not good any more, through a real web server"""

import base64
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import gevent
import pytest

from fleetpulse.master.access.store import TokenFile, TokenStore
from fleetpulse.master.access.tokens import Role, make_token
from fleetpulse.master.api.access import SESSION_COOKIE
from fleetpulse.master.api.subscribers import ENDED
from tests.master.api.event_reader import Event, EventReader
from tests.master.api.stream_api import PATH, running_stream
from tests.master.api.task_api import running_task_api
from tests.master.api.web_server import served
from tests.master.fleet import wait_until
from tests.master.guards import access_of


class Credentials:
    """Tokens over a clock, and the guard that asks for them. The file is looked at every time."""

    def __init__(self, folder: Path) -> None:
        self.time = 0.0
        self._file = TokenFile(folder / "tokens.json")
        _, owner = make_token("owner", Role.ADMIN, 0.0, None)
        self.owner = bearer(owner)
        self.access = access_of(
            TokenStore(self._file, owner, clock=lambda: self.time, monotonic=map(float, count()).__next__)
        )

    def make(self) -> str:
        token, secret = make_token("ci", Role.READ, self.time, 60.0)
        self._file.change(lambda tokens: [*tokens, token])
        return secret

    def revoke(self) -> None:
        self._file.change(lambda tokens: [one._replace(revoked=self.time) for one in tokens])

    def expire(self) -> None:
        self.time += 61.0


class Site:
    """A stream that needs credentials."""

    def __init__(
        self, credentials: Credentials, address: tuple[str, int], path: str, tell: Callable[[], object]
    ) -> None:
        self.credentials, self.address, self.path, self.tell = credentials, address, path, tell

    def reader(self, *lines: str) -> EventReader:
        """One who has read what there is."""
        reader = EventReader(self.address, self.path, *lines)
        assert reader.answered.status == 200
        assert reader.take(1)[0].kind in {"reset", "status"}
        return reader


def bearer(secret: str) -> str:
    return f"Authorization: Bearer {secret}"


@pytest.fixture(params=["the live stream", "a log"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    credentials = Credentials(tmp_path)
    guard = credentials.access.middleware
    if request.param == "a log":
        with running_task_api(guard) as tasks, served(tasks.app) as server:
            task_id = tasks.submit()
            yield Site(
                credentials, server.address, f"/api/tasks/{task_id}/logs?follow=true", lambda: tasks.fake.place(task_id)
            )
            wait_until(lambda: len(tasks.subscribers) == 0)
    else:
        with running_stream(guards=[guard]) as web, served(web.app) as server:
            yield Site(credentials, server.address, PATH, lambda: web.fleet.beat("a"))
            wait_until(lambda: web.readers() == 0)


def password_revoked(credentials: Credentials) -> tuple[str, Callable[[], object]]:
    return f"Authorization: Basic {base64.b64encode(f'x:{credentials.make()}'.encode()).decode()}", credentials.revoke


def revoked(credentials: Credentials) -> tuple[str, Callable[[], object]]:
    return bearer(credentials.make()), credentials.revoke


def expired(credentials: Credentials) -> tuple[str, Callable[[], object]]:
    return bearer(credentials.make()), credentials.expire


def signed_out(credentials: Credentials) -> tuple[str, Callable[[], object]]:
    session_id = session_of(credentials)
    return f"Cookie: {SESSION_COOKIE}={session_id}", lambda: credentials.access.sessions.end(session_id)


def token_of_session_revoked(credentials: Credentials) -> tuple[str, Callable[[], object]]:
    return f"Cookie: {SESSION_COOKIE}={session_of(credentials)}", credentials.revoke


def first_token_created(credentials: Credentials) -> tuple[str, Callable[[], object]]:
    return "X-Shown: nothing", credentials.make


def session_of(credentials: Credentials) -> str:
    session = credentials.access.sessions.begin(credentials.make())
    assert session is not None
    return session[0]


@pytest.mark.parametrize(
    "way", [revoked, expired, password_revoked, signed_out, token_of_session_revoked, first_token_created]
)
def test_stream_ends_when_its_credentials_end_and_no_other_stream_does(
    site: Site, way: Callable[[Credentials], tuple[str, Callable[[], object]]]
) -> None:
    line, end = way(site.credentials)
    with site.reader(line) as reader, site.reader(site.credentials.owner) as other:
        end()
        assert list(reader)[-1] == Event("problem", {"status": 401, "detail": ENDED})
        # The connection can be used again, and comes to nothing.
        reader.request("GET", site.path, line)
        assert reader.answer()[0] == 401
        site.tell()
        assert {event.kind for event in other.take(2)} & {"update", "status"}


def test_stream_with_valid_credentials_goes_on(site: Site) -> None:
    line, _ = revoked(site.credentials)
    with site.reader(line) as reader:
        site.credentials.time += 59.0
        for _ in range(5):
            gevent.sleep(0.02)
        site.tell()
        assert {event.kind for event in reader.take(2)} & {"update", "status"}
