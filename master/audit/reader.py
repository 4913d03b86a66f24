"""Reads the trail from its end, page by page. Blocks, so it is for a native thread."""

import os
import re
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from master.audit.entry import AuditOutcome, fields_of, needle_of
from master.audit.files import files_of
from master.errors import InvalidCursor

MOST_READ_BYTES = 32 * 1024 * 1024
"""For one page. Where what is asked for is rare, a page may end before it is full, or be empty, and another follow."""

_BLOCK_BYTES = 64 * 1024
_MOST_LINE_BYTES = 64 * 1024
"""What is longer is no line of ours."""

_CLOCK_STEP_SECONDS = 60.0
"""The clock may have been put back by so much between two entries."""

_CURSOR = re.compile(r"([0-9a-f]{8})-([0-9]{1,15})")


class AuditQuery(NamedTuple):
    """Which entries, the newest first. ``None``: any."""

    limit: int
    since: float | None = None
    """Unix seconds."""

    actor: str | None = None
    action: str | None = None
    outcome: AuditOutcome | None = None
    cursor: str | None = None
    """Of the page before."""


class AuditPage(NamedTuple):
    """Entries as their fields by name; ``next_cursor`` is ``None`` when there is nothing more."""

    entries: list[dict[str, Any]]
    next_cursor: str | None


class _Part(NamedTuple):
    """A file of the trail that is open. It keeps its ``name`` when it is turned over: its first line's checksum."""

    name: str
    descriptor: int
    end: int


def read_page(path: Path, query: AuditQuery, most_read_bytes: int = MOST_READ_BYTES) -> AuditPage:
    """Raises ``InvalidCursor``, and ``OSError`` when a file cannot be read."""
    wanted = {name: value for name in ("actor", "action", "outcome") if (value := getattr(query, name)) is not None}
    needles = [needle_of(name, value) for name, value in wanted.items()]
    entries: list[dict[str, Any]] = []
    cursor, read_bytes = None, 0
    with ExitStack() as files:
        for part in _from_cursor(_opened(path, files), query.cursor):
            for offset, line in _lines_backward(part):
                read_bytes += len(line) + 1
                # Most lines need not be parsed, but for their time.
                if query.since is not None or all(needle in line for needle in needles):
                    entry = fields_of(line)
                    if _is_before(entry, query.since, _CLOCK_STEP_SECONDS):
                        return AuditPage(entries, None)
                    if entry is not None and wanted.items() <= entry.items() and not _is_before(entry, query.since):
                        if len(entries) == query.limit:
                            return AuditPage(entries, cursor)
                        entries.append(entry)
                cursor = f"{part.name}-{offset}"
                if read_bytes >= most_read_bytes:
                    return AuditPage(entries, cursor)
    return AuditPage(entries, None)


def _is_before(entry: dict[str, Any] | None, since: float | None, margin_seconds: float = 0.0) -> bool:
    return entry is not None and since is not None and entry["time"] < since - margin_seconds


def _opened(path: Path, files: ExitStack) -> list[_Part]:
    """The newest first. All are opened before any is read, so that none is turned over meanwhile."""
    parts: dict[str, _Part] = {}
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
            parts[name] = _Part(name, descriptor, os.fstat(descriptor).st_size)
    return list(parts.values())


def _from_cursor(parts: list[_Part], cursor: str | None) -> list[_Part]:
    if cursor is None:
        return parts
    match = _CURSOR.fullmatch(cursor)
    for index, part in enumerate(parts):
        if match is not None and part.name == match[1] and int(match[2]) <= part.end:
            return [part._replace(end=int(match[2])), *parts[index + 1 :]]
    raise InvalidCursor("the cursor is not one that a page of the audit trail gave, or is too old; begin without one")


def _lines_backward(part: _Part) -> Iterator[tuple[int, bytes]]:
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
