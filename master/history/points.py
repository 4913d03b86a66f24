"""Points: some seconds of a worker as mean, minimum and maximum of each field; their encodings; and resampling.

A chunk is compressed column by column and byte by byte, so that similar bytes stand together. The lowest byte of each
float is left out: a stored number is right to 1 in 30,000.
"""

import math
import struct
import zlib
from array import array
from collections.abc import Iterable, Iterator, MutableSequence, Sequence
from operator import mul
from typing import NamedTuple

from fleetpulse.master.history.fields import FIELDS, GAUGES, Sample

Point = tuple[float, ...]
"""The means of all fields, then the minima, then the maxima. NaN where the reading was missing all the time."""

WIDTH = len(FIELDS)
COLUMNS = 3 * WIDTH
POINT_BYTES = 4 * COLUMNS

_GAUGES = len(GAUGES)
_NAN = math.nan
_NO_POINT: Point = (_NAN,) * COLUMNS
_Sums = tuple[float, float, float, float]
_NO_SUM: _Sums = (0.0, 0.0, math.inf, -math.inf)
_NO_SUMS = array("d", _NO_SUM * WIDTH)
_MAX_PACKED = 16
_SAMPLE = struct.Struct(f"={WIDTH + 1}d")
"""The values of all fields, then the seconds of the rates."""

_POINT = struct.Struct(f"<{COLUMNS}f")
_CHUNK_HEAD = struct.Struct("<BIHH")
_JOURNAL_HEAD = struct.Struct("<IB")
_VERSION = 1
_LARGEST = 3e38
_KEPT_BYTES = (3, 2, 1)
_JOURNAL_LEVEL = 1


class Bucket:
    """Collects samples, or the points of smaller buckets. ``index`` is its time, in steps since 1970.

    A sample stays packed until the bucket is closed or has ``_MAX_PACKED`` of them: it costs no object a number, and
    what it takes to add up a column is paid once for all samples.
    """

    __slots__ = ("_packed", "_sums", "index")

    def __init__(self, index: int) -> None:
        self.index = index
        self._packed: list[bytes] = []
        self._sums: array[float] | None = None
        """Weight, weighted total, minimum and maximum of each field in turn."""

    def add(self, sample: Sample, seconds: float) -> None:
        """``seconds`` is the time that the rates are of, so that their mean is what was moved in the whole time."""
        self._packed.append(_SAMPLE.pack(*[_NAN if value is None else value for value in sample], seconds))
        if len(self._packed) >= _MAX_PACKED:
            self._sum_up()

    def add_point(self, point: Point) -> None:
        """All points weigh the same, however many samples were in them: they are of equal times."""
        sums = self._sums_from_here()
        at = 0
        for mean, low, high in zip(point[:WIDTH], point[WIDTH : 2 * WIDTH], point[2 * WIDTH :], strict=True):
            if mean == mean:  # noqa: PLR0124 - NaN alone differs from itself
                sums[at] += 1.0
                sums[at + 1] += mean
                if low < sums[at + 2]:  # noqa: PLR1730 - a call costs more
                    sums[at + 2] = low
                if high > sums[at + 3]:  # noqa: PLR1730
                    sums[at + 3] = high
            at += 4

    def point(self) -> Point:
        if self._sums is not None:
            self._sum_up()
            sums = self._sums
            return _point(zip(sums[::4], sums[1::4], sums[2::4], sums[3::4], strict=True))
        return _point(_sums(self._packed)) if self._packed else _NO_POINT

    def _sum_up(self) -> None:
        packed, self._packed = self._packed, []
        sums = self._sums_from_here()
        for index, (weight, total, low, high) in enumerate(_sums(packed) if packed else ()):
            at = 4 * index
            sums[at] += weight
            sums[at + 1] += total
            sums[at + 2] = min(sums[at + 2], low)
            sums[at + 3] = max(sums[at + 3], high)

    def _sums_from_here(self) -> "array[float]":
        if self._sums is None:
            self._sums = array("d", _NO_SUMS)
        return self._sums


def _sums(packed: Iterable[bytes]) -> Iterator[_Sums]:
    """Adds up each field of at least one sample."""
    *columns, seconds = zip(*map(_SAMPLE.unpack, packed), strict=True)
    for index, column in enumerate(columns):
        weights = seconds
        if (total := sum(column)) != total:  # NaN: some are missing
            known = [pair for pair in zip(column, seconds, strict=True) if pair[0] == pair[0]]
            if not known:
                yield _NO_SUM
                continue
            column, weights = zip(*known, strict=True)  # noqa: PLW2901
            total = sum(column)
        if index < _GAUGES:
            yield float(len(column)), total, min(column), max(column)
        else:
            yield sum(weights), sum(map(mul, column, weights)), min(column), max(column)


def _point(sums: Iterable[_Sums]) -> Point:
    means, lows, highs = [], [], []
    for weight, total, low, high in sums:
        if weight:
            mean = total / weight
            # Rounding must not put a mean outside of its range.
            means.append(mean if low <= mean <= high else min(max(mean, low), high))
            lows.append(low)
            highs.append(high)
        else:
            means.append(_NAN)
            lows.append(_NAN)
            highs.append(_NAN)
    return (*means, *lows, *highs)


class JournalPoint(NamedTuple):
    """One packed point of one worker. ``time`` is when its bucket began, Unix seconds."""

    worker_id: str
    time: int
    data: bytes


class Points(NamedTuple):
    """Points of one worker, usually in the order of time. ``data`` are packed points one after the other."""

    times: MutableSequence[int]
    data: bytearray

    def append(self, time: int, data: bytes) -> None:
        self.times.append(time)
        self.data.extend(data)

    def copy(self) -> "Points":
        return Points(list(self.times), self.data[:])

    def packed(self) -> Iterator[tuple[int, bytes]]:
        """Yields each time with its packed point."""
        data = bytes(self.data)
        for index, time in enumerate(self.times):
            yield time, data[index * POINT_BYTES : (index + 1) * POINT_BYTES]

    def column(self, column: int) -> tuple[float, ...]:
        """One number of every point: that of a field's index, plus ``WIDTH`` for the minimum, twice for the maximum."""
        values = bytearray(4 * len(self.times))
        for byte in range(4):
            values[byte::4] = self.data[4 * column + byte :: POINT_BYTES]
        return struct.unpack(f"<{len(self.times)}f", values)


def pack(point: Point) -> bytes:
    try:
        return _POINT.pack(*point)
    except OverflowError:
        return _POINT.pack(*[max(min(value, _LARGEST), -_LARGEST) if value == value else value for value in point])  # noqa: PLR0124 - NaN


def unpack(data: bytes) -> Point:
    return _POINT.unpack(data)


def merge(one: bytes, other: bytes) -> bytes:
    """Merges the packed points of two halves of one bucket, which a master leaves that restarts within it."""
    bucket = Bucket(0)
    bucket.add_point(unpack(one))
    bucket.add_point(unpack(other))
    return pack(bucket.point())


def encode_chunk(points: Points, step: int) -> bytes:
    """``points`` is not empty, and its last point begins less than 65,536 steps after its first."""
    first = points.times[0]
    offsets = struct.pack(f"<{len(points.times)}H", *[(time - first) // step for time in points.times])
    columns = [
        bytes(points.data[4 * column + byte :: POINT_BYTES]) for byte in _KEPT_BYTES for column in range(COLUMNS)
    ]
    head = _CHUNK_HEAD.pack(_VERSION, first, step, len(points.times))
    return head + zlib.compress(b"".join((offsets, *columns)), 6)


def decode_chunk(chunk: bytes) -> Points:
    """Raises ``ValueError`` for bytes that are no chunk of this version."""
    try:
        version, first, step, count = _CHUNK_HEAD.unpack_from(chunk)
        body = zlib.decompress(chunk[_CHUNK_HEAD.size :])
    except (struct.error, zlib.error) as error:
        raise ValueError(f"not a chunk of history: {error}") from error
    if version != _VERSION or len(body) != count * (2 + len(_KEPT_BYTES) * COLUMNS):
        raise ValueError(f"a chunk of history of version {version} with {len(body)} bytes")
    times = [first + step * offset for offset in struct.unpack_from(f"<{count}H", body)]
    data = bytearray(POINT_BYTES * count)
    start = 2 * count
    for byte in _KEPT_BYTES:
        for column in range(COLUMNS):
            data[4 * column + byte :: POINT_BYTES] = body[start : start + count]
            start += count
    return Points(times, data)


def encode_journal(points: Iterable[JournalPoint]) -> bytes:
    pieces: list[bytes] = []
    for worker_id, time, data in points:
        name = worker_id.encode()
        pieces += (_JOURNAL_HEAD.pack(time, len(name)), name, data)
    return zlib.compress(b"".join(pieces), _JOURNAL_LEVEL)


def decode_journal(journal: bytes) -> Iterator[JournalPoint]:
    body = zlib.decompress(journal)
    at = 0
    while at < len(body):
        time, length = _JOURNAL_HEAD.unpack_from(body, at)
        name = at + _JOURNAL_HEAD.size
        at = name + length + POINT_BYTES
        yield JournalPoint(body[name : name + length].decode(), time, body[name + length : at])


Values = list[float | None]


class Series(NamedTuple):
    """One field: a value for each step, ``None`` for a gap."""

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
        """The number of points."""
        return (self.stop - self.start) // self.step


def resample(window: Window, parts: Sequence[Points], columns: Sequence[int]) -> list[Series]:
    """Aggregates the points of each step of the window, for the fields with those indexes. The same point may come
    twice. Slow: for a thread."""
    places = [[(time - window.start) // window.step for time in part.times] for part in parts]
    return [_aggregate(window.length, places, parts, column) for column in columns]


def _aggregate(length: int, places: Iterable[Sequence[int]], parts: Iterable[Points], column: int) -> Series:
    totals, counts = [0.0] * length, [0] * length
    lows, highs = [math.inf] * length, [-math.inf] * length
    for at, part in zip(places, parts, strict=True):
        numbers = (part.column(column), part.column(column + WIDTH), part.column(column + 2 * WIDTH))
        for place, mean, low, high in zip(at, *numbers, strict=True):
            if 0 <= place < length and mean == mean:  # noqa: PLR0124 - NaN alone differs from itself
                totals[place] += mean
                counts[place] += 1
                lows[place] = min(lows[place], low)
                highs[place] = max(highs[place], high)
    means = [total / count if count else 0.0 for total, count in zip(totals, counts, strict=True)]
    return Series(
        *[
            [rounded(value) if count else None for value, count in zip(values, counts, strict=True)]
            for values in (means, lows, highs)
        ]
    )


def rounded(value: float) -> float:
    """With as many digits as are stored."""
    return float(f"{value:.5g}")
