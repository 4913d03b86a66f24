"""The part of time that is asked for, and points laid out in it."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fleetpulse.master.history.bucket import WIDTH
from fleetpulse.master.history.points import Points

AUTOMATIC_POINTS = 1_000
MAX_POINTS = 6_000
MAX_STEP = 86_400

_STEPS = (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)

Values = list[float | None]


class Series(NamedTuple):
    """One field: a value a step, ``None`` for a gap."""

    mean: Values
    low: Values
    high: Values


class Window(NamedTuple):
    """From ``start`` until before ``stop``, both whole steps of Unix seconds."""

    start: int
    stop: int
    step: int

    @property
    def length(self) -> int:
        """How many points."""
        return (self.stop - self.start) // self.step


def aligned(start: float, stop: float, step: int) -> Window:
    """Widened to whole steps; at least one."""
    first = math.floor(start / step)
    return Window(first * step, max(math.ceil(stop / step), first + 1) * step, step)


def automatic_step(seconds: float, at_least: int) -> int:
    """The shortest usual step that makes no more than ``AUTOMATIC_POINTS``."""
    for step in _STEPS:
        if step >= at_least and seconds / step <= AUTOMATIC_POINTS:
            return step
    days = math.ceil(seconds / AUTOMATIC_POINTS / MAX_STEP)
    return days * MAX_STEP


def rounded_step(step: int, lengths: Sequence[int]) -> int:
    """The step, rounded up to a multiple of the largest of ``lengths``, which grow, that is no longer than it."""
    unit = max([length for length in lengths if length <= step], default=lengths[0])
    return math.ceil(step / unit) * unit


def laid_out(window: Window, parts: Iterable[Points], columns: Sequence[int]) -> list[Series]:
    """Those fields, by their indexes, of points that may come twice. Points of one step of the window are put together.

    Long: for a thread.
    """
    layouts = [_Layout(window) for _ in columns]
    for part in parts:
        places = [(time - window.start) // window.step for time in part.times]
        for layout, column in zip(layouts, columns, strict=True):
            layout.add(places, part.column(column), part.column(column + WIDTH), part.column(column + 2 * WIDTH))
    return [layout.series() for layout in layouts]


class _Layout:
    """One field in the making."""

    def __init__(self, window: Window) -> None:
        self._length = window.length
        self._totals, self._counts = [0.0] * self._length, [0] * self._length
        self._lows, self._highs = [math.inf] * self._length, [-math.inf] * self._length

    def add(self, places: Sequence[int], means: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> None:
        length, totals, counts = self._length, self._totals, self._counts
        for place, mean, low, high in zip(places, means, lows, highs, strict=True):
            if 0 <= place < length and mean == mean:  # noqa: PLR0124 - NaN alone differs from itself
                totals[place] += mean
                counts[place] += 1
                self._lows[place] = min(self._lows[place], low)
                self._highs[place] = max(self._highs[place], high)

    def series(self) -> Series:
        return Series(
            [_shown(total / count) if count else None for total, count in zip(self._totals, self._counts, strict=True)],
            [_shown(low) if count else None for low, count in zip(self._lows, self._counts, strict=True)],
            [_shown(high) if count else None for high, count in zip(self._highs, self._counts, strict=True)],
        )


def _shown(value: float) -> float:
    """With as many digits as are right."""
    return float(f"{value:.5g}")
