"""master.store.url: what may be in DATABASE_URL, and that no password leaves it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.master.errors import ConfigError
from fleetpulse.master.store.url import default_url, parse_database_url


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_postgresql_goes_by_psycopg(scheme: str) -> None:
    database = parse_database_url(f" {scheme}://user:secret@host:5433/fleet?sslmode=require\n")
    assert database.path is None
    assert database.url.drivername == "postgresql+psycopg"
    assert database.url.password == "secret"
    assert database.url.query == {"sslmode": "require"}
    assert str(database) == "postgresql+psycopg://user:***@host:5433/fleet"


def test_a_password_in_the_parameters_is_not_shown_either() -> None:
    assert "secret" not in str(parse_database_url("postgresql://host/fleet?user=u&password=secret"))


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+pysqlite"])
def test_a_sqlite_file_is_named_by_its_path(scheme: str) -> None:
    database = parse_database_url(f"{scheme}:////srv/fleet/f.db")
    assert database.path == Path("/srv/fleet/f.db")
    assert str(database) == "/srv/fleet/f.db"
    assert parse_database_url(f"{scheme}:///f.db").path == Path.cwd() / "f.db"


@given(
    st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1).filter(
        lambda name: name not in {".", ".."}
    )
)
def test_any_folder_can_hold_the_default_database(name: str) -> None:
    assert parse_database_url(default_url(Path("/srv") / name)).path == Path("/srv") / name / "fleetpulse.db"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fleetpulse.db",
        "/srv/fleetpulse.db",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///file:fleet?mode=memory",
        "sqlite:///f.db?cache=shared",
        "sqlite://secret/f.db",
        "sqlite://user:secret@/f.db",
        "mysql://user:secret@host/fleet",
        "postgresql+psycopg2://user:secret@host/fleet",
        "postgresql+asyncpg://user:secret@host/fleet",
        "postgresql://user:secret@host:port/fleet",
        "postgresql://user:secret@[::1/fleet",
        "postgresql:/user:secret@host/fleet",
        "://user:secret@host",
    ],
)
def test_anything_else_is_refused_without_a_password(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^DATABASE_URL") as refused:
        parse_database_url(text)
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None
