"""``top``: the fleet, live."""

import os

import click

from fleetpulse.master.console.clean import one_line
from fleetpulse.master.console.command import ClientContext, console_command
from fleetpulse.master.console.feed import POLL_SECONDS, Fleet, FleetFeed, polled
from fleetpulse.master.console.tables import Column
from fleetpulse.master.console.top_rows import COLUMNS, SORT_KEYS, Past, View, chosen, row

_SHOWN_ONCE = [index for index, column in enumerate(COLUMNS) if not column.title.endswith("LATELY")]


@console_command("top")
@click.option("--once", is_flag=True, help="Print one table and end; so it is where the output is no terminal.")
@click.option("--sort", type=click.Choice(list(SORT_KEYS)), default="cpu", show_default=True, help="By what.")
@click.option("--reverse", "is_reversed", is_flag=True, help="The other way round.")
@click.option("--filter", "filter_text", default="", help="Only whose id, host name or state has this in it.")
@click.option(
    "--every", type=click.FloatRange(min=0.1), default=POLL_SECONDS, show_default=True,
    help="Seconds between two looks at a master that has no stream.",
)  # fmt: skip
def top_command(
    session: ClientContext, once: bool, sort: str, is_reversed: bool, filter_text: str, every: float
) -> None:
    """Watch the fleet live, sorted as you wish.

    Keys: n c m g t s sort by name, CPU, memory, GPU, tasks or state, r turns the order round, / filters, q quits.
    """
    view = View(sort, is_reversed, filter_text)
    if session.screen.is_json:
        session.screen.json(session.client.get_list("/api/workers"))
        return
    fleet = polled(session.client)
    if once or not session.screen.is_terminal:
        _print(session, fleet, view)
    elif code := _watch(session, fleet, view, every):
        click.get_current_context().exit(code)


def _print(session: ClientContext, fleet: Fleet, view: View) -> None:
    past, now = Past(), session.client.now()
    rows = [row(worker_id, worker, past, now) for worker_id, worker in chosen(fleet, view)]
    columns: list[Column] = [COLUMNS[index] for index in _SHOWN_ONCE]
    session.screen.table(columns, [[cells[index] for index in _SHOWN_ONCE] for cells in rows], nothing="no workers")


def _watch(session: ClientContext, fleet: Fleet, view: View, every: float) -> int:
    if session.screen.no_color:
        os.environ["NO_COLOR"] = "1"  # the one way in which textual takes it
    from fleetpulse.master.console.top_app import TopApp  # noqa: PLC0415 - textual takes longer to load than most commands to end

    app = TopApp(view, session.client.now)
    app.title = one_line(f"FleetPulse {session.client.url}")
    app.heard(fleet)
    feed = FleetFeed(session.client.another(), on_fleet=app.heard, on_trouble=app.troubled, poll_seconds=every)
    feed.start()
    try:
        return app.run() or 0
    finally:
        feed.stop()
