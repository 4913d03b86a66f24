"""``top``: the fleet, live. This module decides what is shown; ``top_app`` is the terminal application."""

import os
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import click

from fleetpulse.master.console import formatting as fmt
from fleetpulse.master.console.command import ClientContext, console_command
from fleetpulse.master.console.screen import Cell, Column, Shown, as_cell, styled
from fleetpulse.master.console.status import count_states
from fleetpulse.master.console.stream import POLL_SECONDS, FleetSnapshot, FleetWatcher, WorkerSummary, poll_fleet
from fleetpulse.master.console.workers import STATE_STYLES, natural_key, state_of

SPARKLINE_LENGTH = 20
MAX_ROWS = 300
"""Larger fleets are sorted and filtered first."""

SORT_KEYS = {"name": "n", "cpu": "c", "memory": "m", "gpu": "g", "tasks": "t", "state": "s"}
"""The orders, and the key of the keyboard for each."""

_SORT_FIELDS = {"cpu": "cpu_usage", "memory": "memory_usage", "gpu": "gpu_usage", "tasks": "running_tasks_count"}
_BARS = "▁▂▃▄▅▆▇█"

_Record = tuple[str, WorkerSummary]


class View(NamedTuple):
    """How the table is sorted and filtered."""

    sort: str = "cpu"
    is_reversed: bool = False
    filter: str = ""


class ReadingHistory:
    """The last CPU and memory readings of each worker, for the sparklines."""

    def __init__(self) -> None:
        self._readings: dict[str, dict[str, deque[float | None]]] = {"cpu_usage": {}, "memory_usage": {}}

    def add(self, fleet: FleetSnapshot) -> None:
        """Adds the readings of now and forgets workers that have left."""
        for name, by_worker in self._readings.items():
            for worker_id in by_worker.keys() - fleet.keys():
                del by_worker[worker_id]
            for worker_id, worker in fleet.items():
                reading = worker.get(name) if worker.get("is_active") else None
                by_worker.setdefault(worker_id, deque(maxlen=SPARKLINE_LENGTH)).append(reading)

    def sparkline(self, worker_id: str, name: str) -> str:
        """The readings ``cpu_usage`` or ``memory_usage`` of a worker."""
        return sparkline(self._readings[name].get(worker_id, ()))


def sparkline(readings: Iterable[float | None]) -> str:
    """One character for each reading from 0 to 100; a space for a gap."""
    return "".join(
        " " if reading is None else _BARS[min(len(_BARS) - 1, max(0, int(reading / 100.0 * len(_BARS))))]
        for reading in readings
    )


def summary_state(worker: WorkerSummary) -> str:
    """The same four words as ``fleetpulse workers`` has."""
    return state_of(worker.get("is_active"), worker.get("draining"), worker.get("accepts_tasks") is not False)


def _load_cell(value: Any) -> Cell:
    load = value if isinstance(value, int | float) else 0.0
    return Cell(fmt.percent(value), "bold red" if load >= 90 else "yellow" if load >= 75 else "")


def _two_decimals(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, int | float) else fmt.MISSING


def table_columns(history: ReadingHistory, now: Callable[[], float]) -> tuple[Column, ...]:
    """The columns of the live table. Their records are pairs of an id and a summary."""

    def dim_if_inactive(cell: Callable[[_Record], Shown]) -> Callable[[_Record], Cell]:
        def shown(record: _Record) -> Cell:
            found = as_cell(cell(record))
            return found if record[1].get("is_active") else found._replace(style="dim")

        return shown

    def lately(name: str, style: str) -> Callable[[_Record], Cell]:
        return dim_if_inactive(lambda record: Cell(history.sparkline(record[0], name), style))

    def reading(name: str, show: Callable[[Any], Shown]) -> Callable[[_Record], Cell]:
        return dim_if_inactive(lambda record: show(record[1].get(name)))

    return (
        Column("WORKER", lambda record: record[0]),
        Column("STATE", lambda record: styled(summary_state(record[1]), STATE_STYLES), width=8),
        Column("CPU", reading("cpu_usage", _load_cell), right=True, width=6),
        Column("CPU LATELY", lately("cpu_usage", "cyan"), spare=7, right=True, width=SPARKLINE_LENGTH),
        Column("MEM", reading("memory_usage", _load_cell), spare=1, right=True, width=6),
        Column("MEM LATELY", lately("memory_usage", "magenta"), spare=8, right=True, width=SPARKLINE_LENGTH),
        Column("GPU", reading("gpu_usage", _load_cell), spare=2, right=True, width=6),
        Column("TASKS", reading("running_tasks_count", fmt.number), spare=3, right=True, width=6),
        Column("LOAD", reading("load1", _two_decimals), spare=5, right=True, width=6),
        Column("MEMORY", reading("memory_size_bytes", fmt.size), spare=6, right=True, width=8),
        Column("SEEN", reading("last_update", lambda then: fmt.age(then, now())), spare=4, right=True, width=6),
    )


def select_workers(fleet: FleetSnapshot, view: View) -> list[_Record]:
    """The workers that match the filter, in order: the busiest first, those without a reading last."""
    wanted = view.filter.strip().casefold()
    found = [
        (worker_id, worker)
        for worker_id, worker in fleet.items()
        if wanted in f"{worker_id} {worker.get('hostname') or ''} {summary_state(worker)}".casefold()
    ]
    found.sort(key=lambda item: natural_key(item[0]))
    if view.sort == "state":
        states = tuple(STATE_STYLES)
        found.sort(key=lambda item: states.index(summary_state(item[1])), reverse=view.is_reversed)
    elif view.sort == "name":
        found.sort(key=lambda item: natural_key(item[0]), reverse=view.is_reversed)
    else:
        sign = 1 if view.is_reversed else -1

        def key(item: _Record) -> tuple[int, float]:
            # The last reading of an inactive worker is no load of now.
            reading = item[1].get(_SORT_FIELDS[view.sort]) if item[1].get("is_active") else None
            return (0, sign * reading) if isinstance(reading, int | float) else (1, 0.0)

        found.sort(key=key)
    return found


def headline(fleet: FleetSnapshot, view: View, shown: int, matching: int) -> str:
    """The states, the order and the filter in one line."""
    counts = count_states(map(summary_state, fleet.values())) or "no workers yet"
    order = f"by {view.sort}{' reversed' if view.is_reversed else ''}"
    found = f", filter {view.filter!r}: {matching}" if view.filter else ""
    cut = f", the first {shown}" if shown < matching else ""
    return f"{counts}; {order}{found}{cut}"


@console_command("top")
@click.option("--once", is_flag=True, help="Print one table and end; so it is where the output is no terminal.")
@click.option("--sort", type=click.Choice(list(SORT_KEYS)), default="cpu", show_default=True, help="The order.")
@click.option("--reverse", "is_reversed", is_flag=True, help="Reverse the order.")
@click.option("--filter", "filter_text", default="", help="Only workers whose id, host name or state contains this.")
@click.option(
    "--every", type=click.FloatRange(min=0.1), default=POLL_SECONDS, show_default=True,
    help="Seconds between two polls of a master that has no stream.",
)  # fmt: skip
def top_command(
    context: ClientContext, once: bool, sort: str, is_reversed: bool, filter_text: str, every: float
) -> None:
    """Watch the fleet live.

    Keys: n c m g t s sort by name, CPU, memory, GPU, tasks or state, r reverses the order, / filters, q quits.
    """
    view, screen = View(sort, is_reversed, filter_text), context.screen
    if screen.is_json:
        screen.json(context.client.get_list("/api/workers"))
        return
    fleet = poll_fleet(context.client)
    if once or not screen.is_terminal:
        columns = table_columns(ReadingHistory(), context.client.now)
        columns = tuple(column for column in columns if not column.title.endswith("LATELY"))
        screen.table(columns, select_workers(fleet, view), empty="no workers")
    elif code := _watch(context, fleet, view, every):
        click.get_current_context().exit(code)


def _watch(context: ClientContext, fleet: FleetSnapshot, view: View, every: float) -> int:
    if context.screen.no_color:
        os.environ["NO_COLOR"] = "1"  # textual takes it in no other way
    from fleetpulse.master.console.top_app import TopApp  # noqa: PLC0415 - textual loads slowly

    app = TopApp(view, context.client.now)
    app.title = fmt.one_line(f"FleetPulse {context.client.url}")
    app.show_fleet(fleet)
    watcher = FleetWatcher(context.client.clone(), on_fleet=app.show_fleet, on_error=app.show_error, poll_seconds=every)
    watcher.start()
    try:
        return app.run() or 0
    finally:
        watcher.stop()
