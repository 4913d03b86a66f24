"""Rows that may be there already, said alike to both databases."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, func
from sqlalchemy.dialects import postgresql, sqlite

Rows = Sequence[Mapping[str, Any]]


def insert_or_keep(connection: Connection, table: Table, rows: Rows, keys: Sequence[str]) -> None:
    """A row that is there stays as it is."""
    if rows:
        connection.execute(_insert(connection, table).on_conflict_do_nothing(index_elements=keys), rows)


def insert_or_change(
    connection: Connection,
    table: Table,
    rows: Rows,
    keys: Sequence[str],
    changes: Sequence[str],
    keep_if_null: Sequence[str] = (),
) -> None:
    """Of a row that is there only ``changes`` are written, and ``keep_if_null`` where the new value is not null."""
    if rows:
        insert = _insert(connection, table)
        new = {name: insert.excluded[name] for name in changes}
        new |= {name: func.coalesce(insert.excluded[name], table.c[name]) for name in keep_if_null}
        connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=new), rows)


def _insert(connection: Connection, table: Table) -> Any:
    # Both dialects spell it alike, but have no common type for it.
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)
