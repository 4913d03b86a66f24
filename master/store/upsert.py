"""Rows that may be there already, said alike to both databases."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Table, func
from sqlalchemy.dialects import sqlite

Rows = Sequence[Mapping[str, Any]]


def insert_or_keep(connection: Connection, table: Table, rows: Rows, keys: tuple[str, ...]) -> None:
    """A row that is there stays as it is."""
    if rows:
        connection.execute(_keeping(connection.dialect.name, table, keys), rows)


def insert_or_change(
    connection: Connection,
    table: Table,
    rows: Rows,
    keys: tuple[str, ...],
    changes: tuple[str, ...],
    keep_if_null: tuple[str, ...] = (),
) -> None:
    """Of a row that is there only ``changes`` are written, and ``keep_if_null`` where the new value is not null."""
    if rows:
        connection.execute(_changing(connection.dialect.name, table, keys, changes, keep_if_null), rows)


# Statements are made once: making one takes several times longer than executing it.


@cache
def _keeping(dialect: str, table: Table, keys: tuple[str, ...]) -> Any:
    return _insert(dialect, table).on_conflict_do_nothing(index_elements=keys)


@cache
def _changing(
    dialect: str, table: Table, keys: tuple[str, ...], changes: tuple[str, ...], keep_if_null: tuple[str, ...]
) -> Any:
    insert = _insert(dialect, table)
    new = {name: insert.excluded[name] for name in changes}
    new |= {name: func.coalesce(insert.excluded[name], table.c[name]) for name in keep_if_null}
    return insert.on_conflict_do_update(index_elements=keys, set_=new)


def _insert(dialect: str, table: Table) -> Any:
    """Both dialects spell it alike, but have no common type for it."""
    if dialect == "sqlite":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415 - heavy, and mostly not needed

    return postgresql.insert(table)
