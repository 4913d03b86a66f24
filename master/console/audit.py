"""``audit``: who changed what, and who was refused."""

import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import click

from fleetpulse.master.console import values
from fleetpulse.master.console.client import MasterClient, Query
from fleetpulse.master.console.command import ClientContext, console_command
from fleetpulse.master.console.errors import ConsoleError
from fleetpulse.master.console.options import DURATION
from fleetpulse.master.console.patience import ReconnectPolicy
from fleetpulse.master.console.screen import Screen
from fleetpulse.master.console.tables import Cell, Column

_PAGE = 1000
_LOOK_SECONDS = 1.0
_PATH = "/api/audit"
_OUTCOMES = ("ok", "refused", "failed")
_STYLES = {"refused": "yellow", "failed": "bold red"}
_COLUMNS = (
    Column("TIME"),
    Column("ACTOR"),
    Column("ROLE", spare=6),
    Column("DOOR", spare=5),
    Column("CLIENT", spare=2),
    Column("ACTION"),
    Column("OUTCOME"),
    Column("STATUS", spare=3),
    Column("MORE", spare=4, right=True),
    Column("TARGET", spare=1),
    Column("DETAIL", spare=7),
)
_WIDTHS = (19, 16, 6, 4, 15, 14, 7, 6, 4, 0, 0)
"""Of the columns while it is followed, when nobody knows what will come."""

_Entries = list[dict[str, Any]]


@console_command("audit")
@click.option("--since", "seconds", type=DURATION, help="Only of this time, as 15m, 2h or 7d.")
@click.option("--actor", help="Only of this one: a token's name, worker:ID or anonymous.")
@click.option("--action", help="Only these, as submit_task or register.")
@click.option("--outcome", type=click.Choice(_OUTCOMES), help="Only what ended so.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="So many of the newest.")
@click.option("--all", "shows_all", is_flag=True, help="All that there are.")
@click.option("-f", "--follow", "follows", is_flag=True, help="The newest last, and on with what comes, until Ctrl-C.")
def audit_command(
    session: ClientContext,
    seconds: float | None,
    actor: str | None,
    action: str | None,
    outcome: str | None,
    limit: int,
    shows_all: bool,
    follows: bool,
) -> None:
    """List who changed what, and who was refused, the newest first. Wants a token that may administer.

    With --follow and --json an entry is a line.
    """
    since = None if seconds is None else f"-{seconds:.3f}s"
    size = _PAGE if shows_all else min(limit, _PAGE)
    query = {"since": since, "actor": actor, "action": action, "outcome": outcome, "limit": size}
    found, newer = _listed(session.client, query, None if shows_all else limit)
    if follows:
        session.screen.note("following; Ctrl-C ends")
        _tell(session.screen, found[::-1], with_head=True)
        for entries in _following(session, newer):
            _tell(session.screen, entries)
    elif session.screen.is_json:
        session.screen.json(found)
    else:
        session.screen.table(_COLUMNS, [_row(entry) for entry in found], nothing="nothing of that kind is in the trail")


def _listed(client: MasterClient, query: Query, most: int | None) -> tuple[_Entries, str | None]:
    """The newest entries, and the address of what will be newer."""
    page = client.page(_PATH, query)
    found, newer = page.items, page.previous
    while page.next is not None and (most is None or len(found) < most):
        page = client.page(page.next)
        found += page.items
    return found[:most], newer


def _following(session: ClientContext, newer: str | None) -> Iterator[_Entries]:
    """What comes, the oldest first, each once. Raises what the master says when it has said so for too long."""
    patience = ReconnectPolicy(session.screen.note)
    while True:
        if newer is None:
            raise ConsoleError(f"the master at {session.client.url} is too old to be followed; update it")
        try:
            page = session.client.page(newer)
        except ConsoleError as error:
            patience.wait(error)
            continue
        patience.heard()
        newer = page.previous
        yield page.items
        if not page.items:
            time.sleep(_LOOK_SECONDS)


def _tell(screen: Screen, entries: _Entries, *, with_head: bool = False) -> None:
    """A line for each, at once."""
    if not screen.is_json:
        if with_head:
            screen.words(_aligned([column.title for column in _COLUMNS]))
        for entry in entries:
            screen.words(_aligned(_row(entry)))
        return
    for entry in entries:
        screen.json(entry, indent=None)
    sys.stdout.flush()


def _aligned(row: list[Cell | str]) -> list[Cell | str]:
    cells = [cell if isinstance(cell, Cell) else Cell(cell) for cell in row]
    return [
        cell._replace(text=cell.text.rjust(width) if column.right else cell.text.ljust(width))
        for cell, column, width in zip(cells, _COLUMNS, _WIDTHS, strict=True)
    ]


def _row(entry: Mapping[str, Any]) -> list[Cell | str]:
    outcome = values.text(entry.get("outcome"))
    return [
        _moment(entry.get("time")),
        values.text(entry.get("actor")),
        values.text(entry.get("role")),
        values.text(entry.get("door")),
        values.text(entry.get("client")),
        values.text(entry.get("action")),
        Cell(outcome, _STYLES.get(outcome, "")),
        values.text(entry.get("status")),
        values.number(entry.get("repeated") or None),
        values.text(entry.get("target")),
        values.text(entry.get("detail")),
    ]


def _moment(unix_seconds: Any) -> str:
    """Date and time of day here."""
    if not isinstance(unix_seconds, int | float):
        return values.MISSING
    return datetime.fromtimestamp(unix_seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
