"""Points as bytes: one as it is held in memory, a chunk of one worker's as it is read, and the journal of all of them.

A chunk is compressed column by column and byte by byte, for what is alike then stands together. The lowest byte of each
float is left out, so that a stored number is right to 1 in 30,000.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator, MutableSequence
from typing import NamedTuple

from fleetpulse.master.history.bucket import WIDTH, Bucket, Point

COLUMNS = 3 * WIDTH
POINT_BYTES = 4 * COLUMNS

_POINT = struct.Struct(f"<{COLUMNS}f")
_CHUNK_HEAD = struct.Struct("<BIHH")
_JOURNAL_HEAD = struct.Struct("<IB")
_VERSION = 1
_LARGEST = 3e38
_KEPT_BYTES = (3, 2, 1)
_JOURNAL_LEVEL = 1


class JournalPoint(NamedTuple):
    """One point of one worker. ``time`` is when its bucket began, Unix seconds; ``data`` is a packed point."""

    worker_id: str
    time: int
    data: bytes


class Points(NamedTuple):
    """Some points of one worker, as a rule in the order of time. ``data`` are packed points one after the other."""

    times: MutableSequence[int]
    data: bytearray

    def append(self, time: int, data: bytes) -> None:
        self.times.append(time)
        self.data.extend(data)

    def copy(self) -> "Points":
        return Points(list(self.times), self.data[:])

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


def combined(one: bytes, other: bytes) -> bytes:
    """The point of two halves of one bucket, as a master leaves them that stops and starts within it."""
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
    """Raise ``ValueError`` for bytes that are no chunk of this version."""
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
