"""Which schema a database has, and whether it is the one that this version needs. Alembic changes it (``migration``).

Alembic is loaded in a process of its own, and only when there is something to change: it would take 9 MB of every
master for ever.
"""

import subprocess
import sys

from sqlalchemy import URL, Connection, inspect, text

from fleetpulse.master.errors import ConfigError, StoreUnavailable

KNOWN = ("0001", "0002", "0003", "0004")
"""The versions of the schema, oldest first. This code needs the last."""

_MIGRATION_SECONDS = 600.0


def is_current(connection: Connection, database: str) -> bool:
    """Whether the tables are as this version needs them. Raise ``ConfigError`` when they are of a newer one, for they
    may hold what this one would not understand."""
    if not inspect(connection).has_table("alembic_version"):
        return False
    found = set(connection.scalars(text("SELECT version_num FROM alembic_version")))
    if unknown := found - set(KNOWN):
        raise ConfigError(
            f"{database} was written by a newer version of FleetPulse (its schema is {', '.join(sorted(unknown))}, "
            f"this version knows up to {KNOWN[-1]}): run that version, or restore an older copy"
        )
    return found == {KNOWN[-1]}


def bring_up_to_date(url: URL) -> None:
    """Run every migration that has not run yet. Raise ``StoreUnavailable`` with what the child said when it fails."""
    child = subprocess.run(
        [sys.executable, "-m", "fleetpulse.master.store.migration"],
        # Not as a flag or a variable: others may read those, and a password may be in it.
        input=url.render_as_string(hide_password=False),
        capture_output=True,
        text=True,
        timeout=_MIGRATION_SECONDS,
        check=False,
    )
    if child.returncode != 0:
        raise StoreUnavailable(f"the tables could not be brought up to date: {child.stderr.strip()[-500:]}")
