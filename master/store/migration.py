"""``python -m fleetpulse.master.store.migration``, with a database's URL on stdin: runs the migrations that are due.

For ``schema.bring_up_to_date``, which knows why this is a process of its own.
"""

import sys
from importlib.resources import files

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from fleetpulse.master.store.engines import open_engines
from fleetpulse.master.store.failures import in_words
from fleetpulse.master.store.url import parse_database_url

# Held on PostgreSQL for the length of the migrations; any number that nobody else uses.
_MIGRATION_LOCK = 4_201_702


def migrate(connection: Connection) -> None:
    """Run the migrations in the caller's transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(files("fleetpulse.master.store") / "migrations").replace("%", "%%"))
    command.upgrade(config, "head")


def main() -> int:
    """The exit status: 1 when the database does not let itself be changed now."""
    engines = open_engines(parse_database_url(sys.stdin.read()), 1)
    try:
        with engines.writer.begin() as connection:
            migrate(connection)
    except DBAPIError as error:
        print(in_words(error), file=sys.stderr)
        return 1
    finally:
        engines.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
