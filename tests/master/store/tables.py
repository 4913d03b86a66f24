"""Creates the tables in this process, for tests that are not about migrations."""

from fleetpulse.master.store.database import create_private_file, open_engines, parse_database_url
from fleetpulse.master.store.schema import migrate


def make_tables(database_url: str) -> None:
    """Harmless where they are."""
    database = parse_database_url(database_url)
    if database.path is not None:
        create_private_file(database.path)
    engines = open_engines(database, 1)
    with engines.writer.begin() as connection:
        migrate(connection)
    engines.close()
