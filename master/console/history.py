"""``history``: a worker's readings over time, as plots or numbers."""

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import click

from fleetpulse.master.console import formatting as fmt
from fleetpulse.master.console.client import not_a_master, path_segment
from fleetpulse.master.console.command import ClientContext, console_command
from fleetpulse.master.console.completion import WORKER_ID, suggest_worker
from fleetpulse.master.console.errors import ConsoleError, UnknownId
from fleetpulse.master.console.screen import Column

_DEFAULT_FIELDS = ("cpu_usage", "memory_usage", "gpu_usage")
_PLOT_HEIGHT = 11
_MIN_PLOT_WIDTH, _PIPE_PLOT_WIDTH, _MAX_PLOT_WIDTH = 24, 80, 100
_DAY_SECONDS = 86400.0
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi")


class PlotSeries(NamedTuple):
    """One reading over time. Point ``i`` is at ``start + i * step``, in Unix seconds; ``None`` is a gap."""

    name: str
    unit: str
    start: float
    step: float
    points: Sequence[float | None]


@console_command("history")
@click.argument("worker_id", metavar="WORKER", type=WORKER_ID)
@click.option("--since", metavar="DURATION", help="How far back: 15m, 1h, 7d.  [default: 1h]")
@click.option("--from", "start", help="Where it begins, as Unix seconds or RFC 3339, in place of --since.")
@click.option("--to", help="Where it ends, in the same form; now if not given.")
@click.option("--step", type=click.IntRange(min=1), help="Seconds between two points; if not given, what fits.")
@click.option("--field", "fields", multiple=True, help="A reading, as cpu_usage or load1; repeatable; 'all' for all.")
@click.option("--plot/--numbers", "plots", default=None, help="Plots, as on a terminal, or numbers, as into a pipe.")
def history_command(
    context: ClientContext,
    worker_id: str,
    since: str | None,
    start: str | None,
    fields: tuple[str, ...],
    plots: bool | None,
    **query: Any,
) -> None:
    """Plot a worker's readings: CPU, memory and GPU by default."""
    if since is not None and start is not None:
        raise click.UsageError("--since and --from say the same; give one of them")
    query["from"] = f"-{since.lstrip('-')}" if since else start
    query["fields"] = None if "all" in fields else ",".join(fields or _DEFAULT_FIELDS)
    answer = _fetch(context, worker_id, query)
    screen = context.screen
    if screen.is_json:
        screen.json(answer)
        return
    if answer.get("warning"):
        screen.note(f"note: {answer['warning']}")
    all_series = _parse(context.client.url, answer)
    with_points = [series for series in all_series if any(point is not None for point in series.points)]
    if not with_points:
        raise ConsoleError(f"nothing is known of {worker_id} in that time; --since 24h looks further back")
    if screen.is_terminal if plots is None else plots:
        width = min(screen.console().width, _MAX_PLOT_WIDTH) if screen.is_terminal else _PIPE_PLOT_WIDTH
        for series in with_points:
            screen.plot(plot(series, width, _PLOT_HEIGHT))
    else:
        _print_numbers(context, all_series)


def _fetch(context: ClientContext, worker_id: str, query: dict[str, Any]) -> dict[str, Any]:
    segment = path_segment(worker_id, "worker")
    try:
        return context.client.get_dict(f"/telemetry/{segment}/history", query)
    except UnknownId:
        # Either the worker is unknown, or there is no history.
        with suggest_worker(context.client, worker_id):
            context.client.get_dict(f"/api/workers/{segment}")
        raise ConsoleError(f"the master keeps no history, or none of {worker_id} in that time yet") from None


def _parse(url: str, answer: dict[str, Any]) -> list[PlotSeries]:
    try:
        start, step = float(answer["from"]), float(answer["step"])
        return [
            PlotSeries(fmt.one_line(name), fmt.one_line(field["unit"]), start, step, list(field["mean"]))
            for name, field in answer["fields"].items()
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise not_a_master(url, "its history does not have the shape of a master's") from None


def _print_numbers(context: ClientContext, all_series: Sequence[PlotSeries]) -> None:
    start, step = all_series[0].start, all_series[0].step
    rows = enumerate(zip(*(series.points for series in all_series), strict=True))
    records = [[start + index * step, *points] for index, points in rows if any(one is not None for one in points)]
    columns = [Column("TIME", lambda record: fmt.local_time(record[0]))]
    columns += (Column(series.name.upper(), _point(index), right=True) for index, series in enumerate(all_series, 1))
    context.screen.table(columns, records, empty="nothing is known of that time")


def _point(index: int) -> Callable[[Sequence[float | None]], str]:
    return lambda record: fmt.number(record[index])


def plot(series: PlotSeries, width: int, height: int) -> str:
    """Draws a series with braille characters, without colours. At least one point must be known."""
    # It takes long to load, and has no types.
    from plotext import figure  # type: ignore[import-untyped]  # noqa: PLC0415

    factor, unit = scale(series)
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(max(width, _MIN_PLOT_WIDTH), height)
    figure.title(f"{series.name}, {unit}")
    scaled = [None if point is None else point / factor for point in series.points]
    for run in runs(scaled):
        times = [series.start + index * series.step for index, _ in run]
        figure.draw(figure.signal(times, [value for _, value in run], marker="braille").lines())
    end = series.start + len(series.points) * series.step
    figure.ruler("x").lim(series.start, end)
    known = [value for value in scaled if value is not None]
    figure.ruler("y").lim(0.0, 100.0 if series.unit == "percent" else max(known) * 1.1 or 1.0)
    figure.ruler("x").ticks(*_ticks(series.start, end, width))
    text = _ESCAPES.sub("", str(figure.build()))
    figure.clear()
    return "\n".join(line.rstrip() for line in text.splitlines())


def runs(points: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """The stretches without a gap, each point with its index."""
    groups = itertools.groupby(enumerate(points), key=lambda item: item[1] is not None)
    return [[(index, point) for index, point in run if point is not None] for is_known, run in groups if is_known]


def scale(series: PlotSeries) -> tuple[float, str]:
    """The divisor for bytes, and the unit after it."""
    if not series.unit.startswith("bytes"):
        return 1.0, series.unit
    highest = max((point for point in series.points if point is not None), default=0.0)
    power = 0
    while highest >= 1024.0 ** (power + 1) and power < len(_BINARY) - 1:
        power += 1
    return 1024.0**power, f"{_BINARY[power]}B{series.unit.removeprefix('bytes').replace('/second', '/s')}"


def _ticks(start: float, end: float, width: int) -> tuple[list[float], list[str]]:
    form = "%H:%M" if end - start <= _DAY_SECONDS else "%d %b %H:%M"
    count = max(2, min(7, width // 20))
    times = [start + (end - start) * index / (count - 1) for index in range(count)]
    return times, [fmt.local_time(time, form) for time in times]
