"""``DATABASE_URL``: what it may be, and how it is shown without its password."""

from pathlib import Path
from typing import NamedTuple

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from fleetpulse.master.errors import ConfigError

DATABASE_FILE = "fleetpulse.db"

_EXPECTED = "expected sqlite:////folder/fleetpulse.db or postgresql://user:password@host:5432/database"
_SQLITE = frozenset({"sqlite", "sqlite+pysqlite"})
_POSTGRESQL = frozenset({"postgresql", "postgres", "postgresql+psycopg"})


class DatabaseUrl(NamedTuple):
    """Where the store is. ``path`` is of SQLite's file, absolute; ``None`` for PostgreSQL."""

    url: URL
    path: Path | None

    def __str__(self) -> str:
        """Fit for a log: neither the password nor the query, which may hold one too."""
        if self.path is not None:
            return str(self.path)
        return self.url.set(query={}).render_as_string(hide_password=True)


def default_url(data_dir: Path) -> str:
    """SQLite's file in the data directory, as a URL; any character may be in the path."""
    return URL.create("sqlite", database=str(data_dir / DATABASE_FILE)).render_as_string()


def parse_database_url(text: str) -> DatabaseUrl:
    """Raise ``ConfigError``, which shows nothing that could be a password, for a URL that is not usable."""
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):
        # From None: both errors quote the whole URL.
        raise ConfigError(f"DATABASE_URL is not a URL: {_EXPECTED}") from None
    if url.drivername in _SQLITE:
        return _sqlite(url)
    if url.drivername in _POSTGRESQL:
        return DatabaseUrl(url.set(drivername="postgresql+psycopg"), None)
    raise ConfigError(f"DATABASE_URL begins with {url.drivername}: {_EXPECTED}")


def _sqlite(url: URL) -> DatabaseUrl:
    if url.host or url.username or url.password or url.port:
        raise ConfigError("DATABASE_URL: write three slashes before the path of a SQLite file, four if it is absolute")
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ConfigError(f"DATABASE_URL names no SQLite file: {_EXPECTED}")
    if url.query:
        raise ConfigError("DATABASE_URL: a SQLite file takes no parameters")
    path = Path(url.database).absolute()
    return DatabaseUrl(URL.create("sqlite+pysqlite", database=str(path)), path)
