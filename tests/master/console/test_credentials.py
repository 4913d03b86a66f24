"""master.console.credentials and listener: which token is shown, and to whom"""

import os
import socket
from pathlib import Path

import click
import pytest

from fleetpulse.master.access.store import owner_secret
from fleetpulse.master.console.credentials import token_for
from fleetpulse.master.console.listener import users_listening

URL = "http://localhost:8080"
ROOT, OTHER = 0, 4711

# As a kernel wrote it: port 8080 with a listener, a client of it, and a connection to port 8080 elsewhere.
TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  4711        0 119 1
   1: 0100007F:1F90 0100007F:8CC0 01 00000000:00000000 00:00000000 00000000     5        0 120 1
   2: 0100007F:8CC0 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     6        0 121 3
"""


@pytest.fixture
def secret(tmp_path: Path) -> str:
    """The owner's, in the data directory."""
    return owner_secret(tmp_path)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"FLEETPULSE_DATA_DIR": str(tmp_path)}


Environment = dict[str, str]


def test_what_is_given_is_shown_to_whom_it_is_given_for(secret: str, environment: Environment, tmp_path: Path) -> None:
    def shown(given: str | None, **more: str) -> str | None:
        return token_for("http://rack-1:8080", given, environment | more, lambda _port: frozenset({OTHER}))()

    assert shown(" given\n") == "given"
    (tmp_path / "token").write_text("of a file\n")
    assert shown(None, FLEETPULSE_TOKEN_FILE=str(tmp_path / "token")) == "of a file"
    assert shown(None) is None
    with pytest.raises(click.UsageError, match="No such file"):
        shown(None, FLEETPULSE_TOKEN_FILE=str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("users", "is_shown"),
    [
        (set(), True),
        ({ROOT}, True),
        ({ROOT, os.geteuid()}, True),
        ({OTHER}, False),
        ({OTHER, os.geteuid()}, False),
    ],
)
def test_the_owners_stays_with_its_user(secret: str, environment: Environment, users: set[int], is_shown: bool) -> None:
    assert token_for(URL, None, environment, lambda _port: frozenset(users))() == (secret if is_shown else None)


@pytest.mark.parametrize(
    ("url", "port"), [(URL, 8080), ("http://127.0.0.1", 80), ("https://[::1]", 443), ("http://rack-1:8080", None)]
)
def test_the_owners_stays_on_the_machine(secret: str, environment: Environment, url: str, port: int | None) -> None:
    asked: list[int] = []

    def nobody(port: int) -> frozenset[int]:
        asked.append(port)
        return frozenset()

    assert token_for(url, None, environment, nobody)() == (None if port is None else secret)
    assert asked == ([] if port is None else [port])


def test_it_is_looked_at_before_each_request(secret: str, environment: Environment) -> None:
    users = iter([{os.geteuid()}, {OTHER}, set[int]()])
    token = token_for(URL, None, environment, lambda _port: frozenset(next(users)))
    assert [token() for _ in range(3)] == [secret, None, secret]


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::")])
def test_who_listens_here(family: socket.AddressFamily, host: str) -> None:
    with socket.create_server((host, 0), family=family) as server:
        port = server.getsockname()[1]
        assert users_listening(port) == {os.geteuid()}
    assert users_listening(port) == set()


def test_who_listened_there(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    table.write_text(TABLE)
    assert users_listening(8080, [table, tmp_path / "none"]) == {OTHER}
    assert users_listening(0x8CC0, [table]) == set()
