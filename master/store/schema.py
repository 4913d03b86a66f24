"""Brings the tables of a database up to what this version knows. The writer's thread does it before anything else."""

import logging
from importlib.resources import files

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from master.errors import ConfigError

_LOGGER = logging.getLogger(__name__)
logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of its plugins

# Held on PostgreSQL for the length of the migrations; any number that nobody else uses.
_MIGRATION_LOCK = 4_201_702


def migrate(connection: Connection, database: str) -> None:
    """Run, in the caller's transaction, every migration that has not run yet.

    Raise ``ConfigError`` when the schema is of a newer version: it may hold what this one would not understand.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(files("master.store") / "migrations").replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    found = set(MigrationContext.configure(connection).get_current_heads())
    if unknown := found - known:
        raise ConfigError(
            f"{database} was written by a newer version of FleetPulse (its schema is {', '.join(sorted(unknown))}, "
            f"this version knows up to {scripts.get_current_head()}): run that version, or restore an older copy"
        )
    if found != set(scripts.get_heads()):
        _LOGGER.info("bringing the tables of %s to version %s", database, scripts.get_current_head())
        command.upgrade(config, "head")
