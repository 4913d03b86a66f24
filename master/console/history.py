"""``history``: how a worker's readings went, as plots."""

from collections.abc import Sequence
from typing import Any

import click

from fleetpulse.master.console import values
from fleetpulse.master.console.answers import no_master
from fleetpulse.master.console.clean import one_line
from fleetpulse.master.console.client import segment
from fleetpulse.master.console.command import ClientContext, console_command
from fleetpulse.master.console.errors import ConsoleError, UnknownId
from fleetpulse.master.console.near import WORKER_ID, worker_named
from fleetpulse.master.console.plot import Series, plot
from fleetpulse.master.console.tables import Column
from fleetpulse.master.console.tasks import clock_time

_USUAL = ("cpu_usage", "memory_usage", "gpu_usage")
_HEIGHT = 11
_MOST_WIDTH = 100
_PIPE_WIDTH = 80


@console_command("history")
@click.argument("worker_id", metavar="WORKER", type=WORKER_ID)
@click.option("--since", metavar="DURATION", help="How far back: 15m, 1h, 7d.  [default: 1h]")
@click.option("--from", "start", help="Where it begins, as Unix seconds or RFC 3339, in place of --since.")
@click.option("--to", "end", help="Where it ends, said alike; now if not given.")
@click.option("--step", type=click.IntRange(min=1), help="Seconds between two points; if not given, what fits.")
@click.option("--field", "fields", multiple=True, help="A reading, as cpu_usage or load1; repeatable; 'all' for all.")
@click.option("--plot/--numbers", "plots", default=None, help="Plots, as on a terminal, or numbers, as into a pipe.")
def history_command(
    session: ClientContext,
    worker_id: str,
    since: str | None,
    start: str | None,
    end: str | None,
    step: int | None,
    fields: tuple[str, ...],
    plots: bool | None,
) -> None:
    """Plot how a worker's readings went: CPU, memory and GPU if nothing else is asked for."""
    if since is not None and start is not None:
        raise click.UsageError("--since and --from say the same; give one of them")
    wanted = None if "all" in fields else ",".join(fields or _USUAL)
    query = {"from": f"-{since.lstrip('-')}" if since else start, "to": end, "step": step, "fields": wanted}
    answer = _asked(session, worker_id, query)
    if session.screen.is_json:
        session.screen.json(answer)
        return
    if answer.get("warning"):
        session.screen.note(f"note: {answer['warning']}")
    series = _series(session.client.url, answer)
    known = [one for one in series if any(point is not None for point in one.points)]
    if not known:
        raise ConsoleError(f"nothing is known of {worker_id} in that time; --since 24h looks further back")
    if session.screen.is_terminal if plots is None else plots:
        _plot(session, known)
    else:
        _numbers(session, series)


def _asked(session: ClientContext, worker_id: str, query: dict[str, Any]) -> dict[str, Any]:
    part = segment(worker_id, "worker")
    try:
        return session.client.get_dict(f"/telemetry/{part}/history", query)
    except UnknownId:
        # Either the worker is unknown, or there is no history.
        with worker_named(session.client, worker_id):
            session.client.get_dict(f"/api/workers/{part}")
        raise ConsoleError(f"the master keeps no history, or none of {worker_id} in that time yet") from None


def _series(url: str, answer: dict[str, Any]) -> list[Series]:
    try:
        return [
            Series(
                one_line(name),
                one_line(field["unit"]),
                float(answer["from"]),
                float(answer["step"]),
                list(field["mean"]),
            )
            for name, field in answer["fields"].items()
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise no_master(url, "its history is none of a master's") from None


def _plot(session: ClientContext, series: Sequence[Series]) -> None:
    screen = session.screen
    width = min(screen.console().width, _MOST_WIDTH) if screen.is_terminal else _PIPE_WIDTH
    for one in series:
        screen.drawing(plot(one, width, _HEIGHT))


def _numbers(session: ClientContext, series: Sequence[Series]) -> None:
    columns = [Column("TIME"), *(Column(one.name.upper(), right=True) for one in series)]
    rows = [
        [clock_time(series[0].start + index * series[0].step), *(values.number(point) for point in points)]
        for index, points in enumerate(zip(*(one.points for one in series), strict=True))
        if any(point is not None for point in points)
    ]
    session.screen.table(columns, rows, nothing="nothing is known of that time")
