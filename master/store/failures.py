"""Whose fault an error of the database is: that of one row, or nobody's here, so that trying again helps."""

import sqlite3
from typing import Any

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, ProgrammingError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from fleetpulse.master.errors import StoreUnavailable

# https://www.postgresql.org/docs/current/errcodes-appendix.html: data, integrity, and limits as that of an index entry.
_ROW_CLASSES = ("22", "23", "54")

KINDS = frozenset({"row", "locked", "disk_full", "unavailable"})


def blames_row(error: Exception) -> bool:
    """Whether a row cannot be written as it is, ever: a bug. Anything else is an outage, and may be over soon."""
    if not isinstance(error, DBAPIError):
        return not isinstance(error, PoolTimeout | OSError | StoreUnavailable)
    if error.connection_invalidated:
        return False
    sqlstate = _sqlstate(error)
    if sqlstate is not None:
        return sqlstate.startswith(_ROW_CLASSES)
    # Without a code it comes from the driver. Python 3.11's sqlite3 has an InterfaceError for a value of a wrong type.
    return isinstance(error, IntegrityError | DataError | ProgrammingError | InterfaceError)


def in_words(error: Exception) -> str:
    """One line for people. The statement is not in it, nor PostgreSQL's detail, which quotes the whole row."""
    if isinstance(error, StatementError) and error.orig is not None:
        lines = str(error.orig).strip().splitlines()
        return lines[0] if lines else type(error.orig).__name__
    return str(error) or type(error).__name__


def kind_of(error: Exception) -> str:
    """One of ``KINDS``, for counting."""
    if blames_row(error):
        return "row"
    if isinstance(error, DBAPIError) and isinstance(error.orig, sqlite3.Error):
        return {"SQLITE_BUSY": "locked", "SQLITE_FULL": "disk_full"}.get(
            getattr(error.orig, "sqlite_errorname", "").partition("_SNAPSHOT")[0], "unavailable"
        )
    return {"53100": "disk_full", "55P03": "locked"}.get(_sqlstate(error) or "", "unavailable")


def _sqlstate(error: Any) -> str | None:
    sqlstate = getattr(getattr(error, "orig", None), "sqlstate", None)
    return sqlstate if isinstance(sqlstate, str) else None
