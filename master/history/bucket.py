"""Some seconds of one worker, as mean, minimum and maximum of every field."""

import math
from array import array
from collections.abc import MutableSequence

from fleetpulse.master.history.fields import FIELDS, GAUGES, Sample

Point = tuple[float, ...]
"""The means of all fields, then the minima, then the maxima. NaN where the reading was missing all the time."""

WIDTH = len(FIELDS)

_GAUGES = len(GAUGES)


class Bucket:
    """Takes samples, or the points of smaller buckets. ``index`` is its time, in steps since 1970.

    ``is_compact``: it takes a third of the memory, and twice the time; for one that takes something seldom.
    """

    __slots__ = ("_highs", "_lows", "_totals", "_weights", "index")

    def __init__(self, index: int, *, is_compact: bool = False) -> None:
        self.index = index
        column = _compact_column if is_compact else _column
        self._weights, self._totals = column(0.0), column(0.0)
        self._lows, self._highs = column(math.inf), column(-math.inf)

    def add(self, sample: Sample, seconds: float) -> None:
        """``seconds`` is the time that the rates are of, so that their mean is what was moved in the whole time."""
        weights, totals, lows, highs = self._weights, self._totals, self._lows, self._highs
        for index, value in enumerate(sample):
            if value is not None:
                weight = 1.0 if index < _GAUGES else seconds
                weights[index] += weight
                totals[index] += value * weight
                # Not min and max: this is done a dozen times for every heartbeat.
                if value < lows[index]:  # noqa: PLR1730
                    lows[index] = value
                if value > highs[index]:  # noqa: PLR1730
                    highs[index] = value

    def add_point(self, point: Point) -> None:
        """A point counts as much as any other, however many samples were in it: its time was as long."""
        for index in range(WIDTH):
            mean = point[index]
            if mean == mean:  # noqa: PLR0124 - NaN alone differs from itself
                self._weights[index] += 1.0
                self._totals[index] += mean
                self._lows[index] = min(self._lows[index], point[WIDTH + index])
                self._highs[index] = max(self._highs[index], point[2 * WIDTH + index])

    def point(self) -> Point:
        means, lows, highs = [math.nan] * WIDTH, [math.nan] * WIDTH, [math.nan] * WIDTH
        for index, weight in enumerate(self._weights):
            if weight:
                low, high = lows[index], highs[index] = self._lows[index], self._highs[index]
                mean = self._totals[index] / weight
                # Rounding shall not put a mean outside of what it is the mean of.
                means[index] = mean if low <= mean <= high else min(max(mean, low), high)
        return (*means, *lows, *highs)


def _column(value: float) -> MutableSequence[float]:
    return [value] * WIDTH


def _compact_column(value: float) -> MutableSequence[float]:
    return array("d", (value,)) * WIDTH
