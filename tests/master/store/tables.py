"""A database with its tables, for tests that are not about how it gets them: without the process that makes them."""

from fleetpulse.master.store.engines import open_engines
from fleetpulse.master.store.files import make_private
from fleetpulse.master.store.migration import migrate
from fleetpulse.master.store.url import parse_database_url


def make_tables(database_url: str) -> None:
    """Harmless where they are."""
    database = parse_database_url(database_url)
    if database.path is not None:
        make_private(database.path)
    engines = open_engines(database, 1)
    with engines.writer.begin() as connection:
        migrate(connection)
    engines.close()
