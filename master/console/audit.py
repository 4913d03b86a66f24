"""``audit``: who changed what, and who was refused."""

import itertools
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import click

from master.console import values
from master.console.command import Session, console_command
from master.console.options import DURATION
from master.console.tables import Cell, Column

_PAGE = 1000
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


@console_command("audit")
@click.option("--since", "seconds", type=DURATION, help="Only of this time, as 15m, 2h or 7d.")
@click.option("--actor", help="Only of this one: a token's name, worker:ID or anonymous.")
@click.option("--action", help="Only these, as submit_task or register.")
@click.option("--outcome", type=click.Choice(_OUTCOMES), help="Only what ended so.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="So many of the newest.")
@click.option("--all", "shows_all", is_flag=True, help="All that there are.")
def audit_command(
    session: Session,
    seconds: float | None,
    actor: str | None,
    action: str | None,
    outcome: str | None,
    limit: int,
    shows_all: bool,
) -> None:
    """List who changed what, and who was refused, the newest first. Wants a token that may administer."""
    since = None if seconds is None else f"-{seconds:.3f}s"
    size = _PAGE if shows_all else min(limit, _PAGE)
    query = {"since": since, "actor": actor, "action": action, "outcome": outcome, "limit": size}
    entries = itertools.chain.from_iterable(session.client.pages("/api/audit", query))
    found = list(itertools.islice(entries, None if shows_all else limit))
    if session.screen.is_json:
        session.screen.json(found)
        return
    session.screen.table(_COLUMNS, [_row(entry) for entry in found], nothing="nothing of that kind is in the trail")


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
