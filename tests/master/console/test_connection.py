"""master.console.connection: the address of the master, and the token that is sent to it"""

import os
from pathlib import Path

import click
import pytest

from fleetpulse.master.access.store import owner_secret
from fleetpulse.master.console.connection import base_url, token_source
from fleetpulse.master.console.errors import ConsoleError

URL = "http://localhost:8080"
ROOT, OTHER = 0, 4711


@pytest.fixture
def secret(tmp_path: Path) -> str:
    """The owner's, in the data directory."""
    return owner_secret(tmp_path)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"FLEETPULSE_DATA_DIR": str(tmp_path)}


Environment = dict[str, str]


def test_given_token_is_sent_to_any_master(secret: str, environment: Environment, tmp_path: Path) -> None:
    def sent(given: str | None, **more: str) -> str | None:
        return token_source("http://rack-1:8080", given, environment | more, lambda _port: frozenset({OTHER}))()

    assert sent(" given\n") == "given"
    (tmp_path / "token").write_text("of a file\n")
    assert sent(None, FLEETPULSE_TOKEN_FILE=str(tmp_path / "token")) == "of a file"
    assert sent(None) is None
    with pytest.raises(click.UsageError, match="No such file"):
        sent(None, FLEETPULSE_TOKEN_FILE=str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("users", "is_sent"),
    [
        (set(), True),
        ({ROOT}, True),
        ({ROOT, os.geteuid()}, True),
        ({OTHER}, False),
        ({OTHER, os.geteuid()}, False),
    ],
)
def test_owner_token_is_not_sent_when_another_user_listens(
    secret: str, environment: Environment, users: set[int], is_sent: bool
) -> None:
    assert token_source(URL, None, environment, lambda _port: frozenset(users))() == (secret if is_sent else None)


@pytest.mark.parametrize(
    ("url", "port"), [(URL, 8080), ("http://127.0.0.1", 80), ("https://[::1]", 443), ("http://rack-1:8080", None)]
)
def test_owner_token_is_not_sent_to_another_machine(
    secret: str, environment: Environment, url: str, port: int | None
) -> None:
    asked: list[int] = []

    def record_port(port: int) -> frozenset[int]:
        asked.append(port)
        return frozenset()

    assert token_source(url, None, environment, record_port)() == (None if port is None else secret)
    assert asked == ([] if port is None else [port])


def test_listener_is_checked_before_each_request(secret: str, environment: Environment) -> None:
    users = iter([{os.geteuid()}, {OTHER}, set[int]()])
    token = token_source(URL, None, environment, lambda _port: frozenset(next(users)))
    assert [token() for _ in range(3)] == [secret, None, secret]


@pytest.mark.parametrize("more", [{}, {"FLEETPULSE_MASTER_USER": "4711"}, {"FLEETPULSE_MASTER_USER": "root"}])
@pytest.mark.parametrize("in_file", [False, True])
def test_given_token_is_not_sent_to_a_port_of_another_user(
    in_file: bool, more: dict[str, str], environment: Environment, tmp_path: Path
) -> None:
    if in_file:
        (tmp_path / "token").write_text("given")
        more = more | {"FLEETPULSE_TOKEN_FILE": str(tmp_path / "token")}
    token = token_source(URL, None if in_file else "given", environment | more, lambda _port: frozenset({ROOT, OTHER}))
    if more.get("FLEETPULSE_MASTER_USER") == "4711":
        assert token() == "given"
    else:
        with pytest.raises(ConsoleError, match="port 8080 of this machine is open, and belongs to the user 4711"):
            token()


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://host:1", "http://host:1"),
        ("https://host/", "https://host"),
        ("http://host/behind/", "http://host/behind"),
        ("host", "http://host:8080"),
        ("host:99", "http://host:99"),
        (":99", "http://127.0.0.1:99"),
        ("[::1]:99", "http://[::1]:99"),
    ],
)
def test_address_is_completed(given: str, url: str) -> None:
    assert base_url(given) == url


@pytest.mark.parametrize(
    "given", ["", "http://", "ftp://host", "host:port", "http://h:99999", "a b", "http://h?x", "\x1b"]
)
def test_bad_address_is_wrong_usage(given: str) -> None:
    with pytest.raises(click.UsageError, match="FLEETPULSE_URL"):
        base_url(given)
