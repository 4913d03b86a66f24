"""Fixtures: a fake master, and commands that run against it."""

from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result

from fleetpulse.master.cli import fleetpulse
from fleetpulse.master.console.client import MasterClient
from tests.master.console.fake_master import FakeMaster, fake_master

Run = Callable[..., Result]


@pytest.fixture
def master() -> Iterator[FakeMaster]:
    """A master without answers."""
    with fake_master() as master:
        yield master


@pytest.fixture
def client(master: FakeMaster) -> Iterator[MasterClient]:
    """A client of the fake master."""
    client = MasterClient(master.url)
    yield client
    client.close()


@pytest.fixture
def run(master: FakeMaster) -> Run:
    """Runs a command against the fake master, into a pipe."""

    def run(*words: str, **env: str) -> Result:
        environment = {"FLEETPULSE_URL": master.url, "FLEETPULSE_TOKEN": None, **env}
        result = CliRunner().invoke(fleetpulse, list(words), env=environment)
        # Any other exception is a bug.
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run
