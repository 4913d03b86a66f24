"""Some seconds of one worker, as mean, minimum and maximum of every field."""

import math
from collections.abc import Sequence

from master.history.fields import FIELDS, GAUGES, Sample

Point = tuple[float, ...]
"""The means of all fields, then the minima, then the maxima. NaN where the reading was missing all the time."""

WIDTH = len(FIELDS)

_LARGEST = 3e38
"""A point is stored with 32-bit floats."""


class Bucket:
    """Takes samples, or the points of smaller buckets. ``index`` is its time, in steps since 1970."""

    __slots__ = ("_highs", "_lows", "_totals", "_weights", "index")

    def __init__(self, index: int) -> None:
        self.index = index
        self._weights, self._totals = [0.0] * WIDTH, [0.0] * WIDTH
        self._lows, self._highs = [math.inf] * WIDTH, [-math.inf] * WIDTH

    def add(self, sample: Sample, seconds: float) -> None:
        """``seconds`` is the time that the rates are of, so that their mean is what was moved in the whole time."""
        gauges = len(GAUGES)
        for index, value in enumerate(sample):
            if value is not None:
                self._add(index, value, value, value, 1.0 if index < gauges else seconds)

    def add_point(self, point: Point) -> None:
        """A point counts as much as any other, however many samples were in it: its time was as long."""
        for index in range(WIDTH):
            mean = point[index]
            if mean == mean:  # noqa: PLR0124 - NaN alone differs from itself
                self._add(index, mean, point[WIDTH + index], point[2 * WIDTH + index], 1.0)

    def point(self) -> Point:
        known = [weight > 0.0 for weight in self._weights]
        sums = zip(self._totals, self._weights, self._lows, self._highs, strict=True)
        # Rounding shall not put a mean outside of what it is the mean of.
        means = [min(max(total / (weight or 1.0), low), high) for total, weight, low, high in sums]
        return (*_where(known, means), *_where(known, self._lows), *_where(known, self._highs))

    def _add(self, index: int, mean: float, low: float, high: float, weight: float) -> None:
        self._weights[index] += weight
        self._totals[index] += mean * weight
        self._lows[index] = min(self._lows[index], low)
        self._highs[index] = max(self._highs[index], high)


def _where(known: Sequence[bool], values: Sequence[float]) -> list[float]:
    return [
        max(min(value, _LARGEST), -_LARGEST) if is_known else math.nan
        for is_known, value in zip(known, values, strict=True)
    ]
