"""The files of the trail as a reader has them: opened all at once, and the places in them that a page tells of.

A place is ``NAME-OFFSET``. It outlives that files are appended to and turned over, and that the master restarts.
"""

import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from fleetpulse.master.audit.files import files_of
from fleetpulse.master.errors import InvalidCursor

_BLOCK_BYTES = 64 * 1024
_MOST_LINE_BYTES = 64 * 1024
"""What is longer is no line of ours."""

_PLACE = re.compile(r"([0-9a-f]{8})-([0-9]{1,15})")
_BEGINNING = "00000000-0"
"""Of a trail in which there is nothing yet."""


class Part(NamedTuple):
    """A file that is open. It keeps its ``name`` when it is turned over: its first line's checksum."""

    name: str
    descriptor: int
    start: int
    end: int


def opened(path: Path, files: ExitStack) -> list[Part]:
    """The newest first. All are opened before any is read, so that none is turned over meanwhile."""
    parts: dict[str, Part] = {}
    for one in files_of(path):
        try:
            descriptor = os.open(one, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        files.callback(os.close, descriptor)
        first, line_break, _ = os.pread(descriptor, _MOST_LINE_BYTES, 0).partition(b"\n")
        name = f"{zlib.crc32(first):08x}"
        # One that was turned over between two opens is there twice.
        if line_break and name not in parts:
            parts[name] = Part(name, descriptor, 0, os.fstat(descriptor).st_size)
    return list(parts.values())


def before(parts: Sequence[Part], place: str) -> list[Part]:
    """What is older than the place, the newest first. Raises ``InvalidCursor``."""
    index, offset = _found(parts, place)
    return [parts[index]._replace(end=offset), *parts[index + 1 :]]


def after(parts: Sequence[Part], place: str) -> list[Part]:
    """What is newer than the place, the oldest first. Raises ``InvalidCursor``."""
    if place == _BEGINNING:
        return [*reversed(parts)]
    index, offset = _found(parts, place)
    return [parts[index]._replace(start=offset), *reversed(parts[:index])]


def end_of(parts: Sequence[Part]) -> str:
    """The place behind the last whole line."""
    if not parts:
        return _BEGINNING
    newest = parts[0]
    start = max(newest.end - _BLOCK_BYTES, 0)
    torn = os.pread(newest.descriptor, newest.end - start, start).rpartition(b"\n")[2]
    return f"{newest.name}-{newest.end - len(torn)}"


def lines_backward(part: Part) -> Iterator[tuple[int, bytes]]:
    """Where each line begins, and the line, the last first."""
    start, rest = part.end, b""
    while start > 0:
        stop, start = start, max(start - _BLOCK_BYTES, 0)
        block = os.pread(part.descriptor, stop - start, start) + rest
        offset = start + len(block)
        lines = block.split(b"\n")
        rest = lines.pop(0) if start > 0 else b""
        if len(rest) > _MOST_LINE_BYTES:
            rest = b""
        for line in reversed(lines):
            offset -= len(line)
            if line:
                yield offset, line
            offset -= 1


def lines_forward(part: Part) -> Iterator[tuple[int, bytes]]:
    """Where each line ends, and the line, the first first. One without a line break is not there yet."""
    offset, start, rest = part.start, part.start, b""
    while start < part.end:
        block = os.pread(part.descriptor, min(_BLOCK_BYTES, part.end - start), start)
        if not block:
            return
        start += len(block)
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            offset += len(line) + 1
            if line:
                yield offset, line
        if len(rest) > _MOST_LINE_BYTES:
            offset, rest = offset + len(rest), b""


def _found(parts: Sequence[Part], place: str) -> tuple[int, int]:
    match = _PLACE.fullmatch(place)
    for index, part in enumerate(parts):
        if match is not None and part.name == match[1] and int(match[2]) <= part.end:
            return index, int(match[2])
    raise InvalidCursor("the cursor is not one that a page of the audit trail gave, or is too old; begin without one")
