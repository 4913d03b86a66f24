"""What ``top`` shows: which workers, in which order, with how much of their past. Pure but for the past it keeps."""

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from fleetpulse.master.console import values
from fleetpulse.master.console.clean import one_line
from fleetpulse.master.console.feed import Fleet, Worker
from fleetpulse.master.console.tables import Cell, Column
from fleetpulse.master.console.workers import natural

PAST = 20
"""Readings in a sparkline."""

MOST_ROWS = 300
"""Shown; who has more workers than that sorts and filters."""

SORT_KEYS = {"name": "n", "cpu": "c", "memory": "m", "gpu": "g", "tasks": "t", "state": "s"}
"""What one may sort by, and the key of the keyboard for it."""

_FIELDS = {"cpu": "cpu_usage", "memory": "memory_usage", "gpu": "gpu_usage", "tasks": "running_tasks_count"}
_STATE_STYLES = {"inactive": "bold red", "draining": "yellow", "no tasks": "cyan", "active": "green"}
_STATES = tuple(_STATE_STYLES)

COLUMNS = (
    Column("WORKER"),
    Column("STATE"),
    Column("CPU", right=True),
    Column("CPU LATELY", spare=7),
    Column("MEM", right=True, spare=1),
    Column("MEM LATELY", spare=8),
    Column("GPU", right=True, spare=2),
    Column("TASKS", right=True, spare=3),
    Column("LOAD", right=True, spare=5),
    Column("MEMORY", right=True, spare=6),
    Column("SEEN", right=True, spare=4),
)
_LATELY = {"CPU LATELY", "MEM LATELY"}


class View(NamedTuple):
    """How the table is to be."""

    sort: str = "cpu"
    is_reversed: bool = False
    filter: str = ""


class Past:
    """The last readings of each worker, one for each call of ``note``."""

    def __init__(self) -> None:
        self._cpu: dict[str, deque[float | None]] = {}
        self._memory: dict[str, deque[float | None]] = {}

    def note(self, fleet: Fleet) -> None:
        """Add the readings of now, and forget who has gone."""
        for kept, field in ((self._cpu, "cpu_usage"), (self._memory, "memory_usage")):
            for worker_id in kept.keys() - fleet.keys():
                del kept[worker_id]
            for worker_id, worker in fleet.items():
                reading = worker.get(field) if worker.get("is_active") else None
                kept.setdefault(worker_id, deque(maxlen=PAST)).append(reading)

    def sparklines(self, worker_id: str) -> tuple[str, str]:
        """Of CPU and of memory."""
        cpu, memory = self._cpu.get(worker_id, ()), self._memory.get(worker_id, ())
        return values.sparkline(cpu).rjust(PAST), values.sparkline(memory).rjust(PAST)


def state(worker: Worker) -> str:
    """As ``fleetpulse workers`` says it, from the short form."""
    if not worker.get("is_active"):
        return "inactive"
    if worker.get("draining"):
        return "draining"
    return "no tasks" if worker.get("accepts_tasks") is False else "active"


def chosen(fleet: Fleet, view: View) -> list[tuple[str, Worker]]:
    """The workers that pass the filter, in order: the busiest first, those without a reading last."""
    wanted = view.filter.strip().casefold()
    found = [(one, worker) for one, worker in fleet.items() if not wanted or wanted in _haystack(one, worker)]
    found.sort(key=lambda item: natural(item[0]))
    if view.sort == "state":
        found.sort(key=lambda item: _STATES.index(state(item[1])), reverse=view.is_reversed)
    elif view.sort == "name":
        found.sort(key=lambda item: natural(item[0]), reverse=view.is_reversed)
    else:
        field, sign = _FIELDS[view.sort], 1 if view.is_reversed else -1
        # What an inactive worker read last is no load of now.
        found.sort(key=lambda item: _order(item[1].get(field) if item[1].get("is_active") else None, sign))
    return found


def row(worker_id: str, worker: Worker, past: Past, now: float) -> list[Cell]:
    """The cells of a worker, for ``COLUMNS``."""
    word = state(worker)
    cpu, memory = past.sparklines(worker_id)
    cells = [
        Cell(one_line(worker_id)),
        Cell(word, _STATE_STYLES[word]),
        _load(worker.get("cpu_usage")),
        Cell(cpu, "cyan"),
        _load(worker.get("memory_usage")),
        Cell(memory, "magenta"),
        _load(worker.get("gpu_usage")),
        Cell(values.number(worker.get("running_tasks_count"))),
        Cell(_rounded(worker.get("load1"))),
        Cell(values.size(worker.get("memory_size_bytes"))),
        Cell(values.age(worker.get("last_update"), now)),
    ]
    return (
        cells if worker.get("is_active") else [cells[0], cells[1], *(cell._replace(style="dim") for cell in cells[2:])]
    )


def shown_columns(width: int, longest_id: int) -> list[int]:
    """The indexes of the columns that there is room for in so many characters."""
    kept = list(range(len(COLUMNS)))
    while sum(_width(COLUMNS[index], longest_id) + 2 for index in kept) > width:
        most = max(kept, key=lambda index: COLUMNS[index].spare)
        if COLUMNS[most].spare == 0:
            break
        kept.remove(most)
    return kept


def headline(fleet: Fleet, view: View, shown: int, fitting: int) -> str:
    """The fleet in a line."""
    states = Counter(state(worker) for worker in fleet.values())
    counts = ", ".join(f"{states[word]} {word}" for word in reversed(_STATES) if states[word]) or "no workers yet"
    order = f"by {view.sort}{' reversed' if view.is_reversed else ''}"
    found = f", filter {view.filter!r}: {fitting}" if view.filter else ""
    cut = f", the first {shown}" if shown < fitting else ""
    return f"{counts}; {order}{found}{cut}"


def _width(column: Column, longest_id: int) -> int:
    if column.title == "WORKER":
        return max(longest_id, len(column.title))
    return PAST if column.title in _LATELY else max(len(column.title), 8 if column.title in {"STATE", "MEMORY"} else 6)


def _load(value: Any) -> Cell:
    if not isinstance(value, int | float):
        return Cell(values.MISSING)
    return Cell(values.percent(value), "bold red" if value >= 90 else "yellow" if value >= 75 else "")


def _rounded(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, int | float) else values.MISSING


def _order(reading: Any, sign: int) -> tuple[int, float]:
    return (0, sign * reading) if isinstance(reading, int | float) else (1, 0.0)


def _haystack(worker_id: str, worker: Mapping[str, Any]) -> str:
    return f"{worker_id} {worker.get('hostname') or ''} {state(worker)}".casefold()
