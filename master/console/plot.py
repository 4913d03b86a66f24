"""Plots of characters: a line over time, with gaps where nothing was read."""

import itertools
import re
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

_DAY_SECONDS = 86400.0
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi")
_LEAST_WIDTH = 24


class Series(NamedTuple):
    """One reading over time: point ``i`` is of ``start + i * step``, in Unix seconds; ``None`` is a gap."""

    name: str
    unit: str
    start: float
    step: float
    points: Sequence[float | None]


def plot(series: Series, width: int, height: int) -> str:
    """The lines of a plot, without colours. There must be a point."""
    # It takes long to load, and has no types.
    from plotext import figure  # type: ignore[import-untyped]  # noqa: PLC0415

    factor, unit = scale(series)
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(max(width, _LEAST_WIDTH), height)
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
    stretches: list[list[tuple[int, float]]] = []
    for is_known, stretch in itertools.groupby(enumerate(points), key=lambda item: item[1] is not None):
        if is_known:
            stretches.append([(index, point) for index, point in stretch if point is not None])
    return stretches


def scale(series: Series) -> tuple[float, str]:
    """By what to divide, and the unit then."""
    if not series.unit.startswith("bytes"):
        return 1.0, series.unit
    most = max((point for point in series.points if point is not None), default=0.0)
    power = 0
    while most >= 1024.0 ** (power + 1) and power < len(_BINARY) - 1:
        power += 1
    return 1024.0**power, f"{_BINARY[power]}B{series.unit.removeprefix('bytes').replace('/second', '/s')}"


def _ticks(start: float, end: float, width: int) -> tuple[list[float], list[str]]:
    form = "%H:%M" if end - start <= _DAY_SECONDS else "%d %b %H:%M"
    count = max(2, min(7, width // 20))
    times = [start + (end - start) * index / (count - 1) for index in range(count)]
    return times, [datetime.fromtimestamp(time).astimezone().strftime(form) for time in times]
