"""``audit``: the audit trail."""

import itertools
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import click

from fleetpulse.master.console import formatting as fmt
from fleetpulse.master.console.client import PAGE_SIZE
from fleetpulse.master.console.command import DURATION, ClientContext, console_command
from fleetpulse.master.console.errors import ConsoleError
from fleetpulse.master.console.screen import Column, Screen, Table, field
from fleetpulse.master.console.stream import ReconnectPolicy

_POLL_SECONDS = 1.0

_Entries = list[dict[str, Any]]

_COLUMNS = (
    Column("TIME", field("time", partial(fmt.local_time, form="%Y-%m-%d %H:%M:%S"))),
    Column("ACTOR", field("actor")),
    Column("ROLE", field("role"), spare=6),
    Column("SOURCE", field("source"), spare=5),
    Column("CLIENT", field("client"), spare=2),
    Column("ACTION", field("action")),
    Column("OUTCOME", field("outcome", styles={"refused": "yellow", "failed": "bold red"})),
    Column("STATUS", field("status"), spare=3),
    Column("MORE", lambda entry: fmt.number(entry.get("repeated") or None), spare=4, right=True),
    Column("TARGET", field("target"), spare=1),
    Column("DETAIL", field("detail"), spare=7),
)
_FOLLOW_WIDTHS = (19, 16, 6, 6, 15, 14, 7, 6, 4, 0, 0)
"""With --follow the widths are fixed, because later entries are unknown."""


@console_command("audit")
@click.option("--since", "seconds", type=DURATION, help="Only entries of this time, as 15m, 2h or 7d.")
@click.option("--actor", help="Only this one: a token's name, worker:ID or anonymous.")
@click.option("--action", help="Only this action, as submit_task or register.")
@click.option("--outcome", type=click.Choice(("ok", "refused", "failed")), help="Only this outcome.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many, the newest.")
@click.option("--all", "shows_all", is_flag=True, help="Without a limit.")
@click.option("-f", "--follow", "follows", is_flag=True, help="The newest last, then new entries until Ctrl-C.")
def audit_command(
    context: ClientContext, seconds: float | None, limit: int, shows_all: bool, follows: bool, **query: Any
) -> None:
    """List who changed what, and who was refused, the newest first. Needs an admin token.

    With --follow and --json each entry is one line.
    """
    query["since"] = None if seconds is None else f"-{seconds:.3f}s"
    query["limit"] = PAGE_SIZE if shows_all else min(limit, PAGE_SIZE)
    page = context.client.page("/api/audit", query)
    entries = list(itertools.islice(context.client.rest(page), None if shows_all else limit))
    if follows:
        context.screen.note("following; Ctrl-C ends")
        if not context.screen.is_json:
            context.screen.line(Table.of(_COLUMNS, []).lines(_FOLLOW_WIDTHS)[0])
        _print(context.screen, entries[::-1])
        for batch in _follow(context, page.previous):
            _print(context.screen, batch)
    else:
        context.screen.table(_COLUMNS, entries, empty="the audit trail has no such entry")


def _follow(context: ClientContext, newer: str | None) -> Iterator[_Entries]:
    """Yields new entries, the oldest first. Raises the master's error when retries do not help."""
    policy = ReconnectPolicy(context.screen.note)
    while True:
        if newer is None:
            raise ConsoleError(f"the master at {context.client.url} is too old to be followed; update it")
        try:
            page = context.client.page(newer)
        except ConsoleError as error:
            policy.wait(error)
            continue
        policy.reset()
        newer = page.previous
        yield page.items
        if not page.items:
            time.sleep(_POLL_SECONDS)


def _print(screen: Screen, entries: _Entries) -> None:
    for entry in entries:
        if screen.is_json:
            screen.json_line(entry)
        else:
            screen.words(
                cell._replace(text=column.aligned(cell.text, width))
                for column, cell, width in zip(
                    _COLUMNS, Table.of(_COLUMNS, [entry]).rows[0], _FOLLOW_WIDTHS, strict=True
                )
            )
