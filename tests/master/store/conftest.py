"""Fixtures: a database and a store, on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetpulse.master.store.database import default_url
from fleetpulse.master.store.store import SqlTaskStore
from tests.master.store.builders import open_store
from tests.postgres import PostgresServer


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path)
    server = request.getfixturevalue("postgres")
    assert isinstance(server, PostgresServer)
    return server.create_schema()


def sqlite_url(tmp_path: Path) -> str:
    return default_url(tmp_path / "data")


@pytest.fixture
def store(database_url: str) -> Iterator[SqlTaskStore]:
    """A store that is open."""
    with open_store(database_url) as store:
        yield store
