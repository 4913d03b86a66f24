"""Reads the trail page by page, backward from its end or forward from a page. Blocks, so it is for a native thread.

A cursor is ``NAME-OFFSET`` and points into a file. It stays valid when files grow or rotate and the master restarts.
"""

import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from fleetpulse.master.audit.entries import AuditOutcome, AuditRecord, files_of, needle_of, record_of
from fleetpulse.master.errors import InvalidCursor

MAX_READ_BYTES = 32 * 1024 * 1024
"""For one page. Where matches are rare, a page may end before it is full, or be empty, and another follow."""

_CLOCK_STEP_SECONDS = 60.0
"""The clock may go back by so much between two entries."""

_BLOCK_BYTES = 64 * 1024
_MAX_LINE_BYTES = 64 * 1024
"""Longer lines were not written by FleetPulse, and are skipped."""

_CURSOR = re.compile(r"([0-9a-f]{8})-([0-9]{1,15})")
_EMPTY = "00000000-0"
"""The cursor of an empty trail."""


class AuditQuery(NamedTuple):
    """Selects entries, the newest first. ``None``: any."""

    limit: int
    since: float | None = None
    """Unix seconds."""

    actor: str | None = None
    action: str | None = None
    outcome: AuditOutcome | None = None
    cursor: str | None = None
    """``AuditPage.next_cursor`` of the page before."""

    after: str | None = None
    """``AuditPage.newest`` of another page: only what was written since, the oldest first."""


class AuditPage(NamedTuple):
    """Entries, and where to continue."""

    entries: list[AuditRecord]
    next_cursor: str | None
    """``None`` when there is nothing older, and on a page that was asked for by ``after``."""

    newest: str | None
    """Where to continue with ``after``: behind this page and those that follow it by ``next_cursor``."""


def read_page(path: Path, query: AuditQuery, max_read_bytes: int = MAX_READ_BYTES) -> AuditPage:
    """Raises ``InvalidCursor``, and ``OSError`` when a file cannot be read."""
    matches = _Matches(query)
    if query.after is not None:
        return _read_forward(path, matches, query.after, max_read_bytes)
    return _read_backward(path, matches, query.cursor, max_read_bytes)


class _Matches:
    """The entries found so far."""

    def __init__(self, query: AuditQuery) -> None:
        self.entries: list[AuditRecord] = []
        self._limit, self._since = query.limit, query.since
        names = ("actor", "action", "outcome")
        self._wanted = {name: value for name in names if (value := getattr(query, name)) is not None}
        self._needles = [needle_of(name, value) for name, value in self._wanted.items()]

    def parse(self, line: bytes) -> AuditRecord | None:
        """Returns the line's entry; ``None`` for a line that cannot match. Without ``since`` most are not parsed."""
        may_match = self._since is not None or all(needle in line for needle in self._needles)
        return record_of(line) if may_match else None

    def is_before(self, entry: AuditRecord | None, margin_seconds: float = 0.0) -> bool:
        """Returns whether the entry is older than ``since``."""
        since = self._since
        return entry is not None and since is not None and entry.time < since - margin_seconds

    def add(self, entry: AuditRecord | None) -> bool:
        """Adds the entry if it matches; returns false if it matches and the page is full."""
        if entry is None or self.is_before(entry):
            return True
        if all(getattr(entry, name) == value for name, value in self._wanted.items()):
            if len(self.entries) == self._limit:
                return False
            self.entries.append(entry)
        return True


def _read_backward(path: Path, matches: _Matches, cursor: str | None, max_read_bytes: int) -> AuditPage:
    next_cursor, read_bytes = None, 0
    with ExitStack() as files:
        parts = _open_all(path, files)
        newest = _end_of(parts) if cursor is None else None
        if cursor is not None:
            index, offset = _find(parts, cursor)
            parts = [parts[index]._replace(end=offset), *parts[index + 1 :]]
        for part in parts:
            for offset, line in _lines_backward(part):
                read_bytes += len(line) + 1
                entry = matches.parse(line)
                if matches.is_before(entry, _CLOCK_STEP_SECONDS):
                    return AuditPage(matches.entries, None, newest)
                if not matches.add(entry):
                    return AuditPage(matches.entries, next_cursor, newest)
                next_cursor = f"{part.name}-{offset}"
                if read_bytes >= max_read_bytes:
                    return AuditPage(matches.entries, next_cursor, newest)
    return AuditPage(matches.entries, None, newest)


def _read_forward(path: Path, matches: _Matches, cursor: str, max_read_bytes: int) -> AuditPage:
    read_bytes = 0
    with ExitStack() as files:
        parts = _open_all(path, files)
        index, offset = (len(parts), 0) if cursor == _EMPTY else _find(parts, cursor)
        current = [part._replace(start=offset) for part in parts[index : index + 1]]
        for part in [*current, *reversed(parts[:index])]:
            for offset, line in _lines_forward(part):
                read_bytes += len(line) + 1
                if not matches.add(matches.parse(line)):
                    return AuditPage(matches.entries, None, cursor)
                cursor = f"{part.name}-{offset}"
                if read_bytes >= max_read_bytes:
                    return AuditPage(matches.entries, None, cursor)
    return AuditPage(matches.entries, None, cursor)


class _Part(NamedTuple):
    """An open file. Its ``name``, the checksum of its first line, survives rotation."""

    name: str
    descriptor: int
    start: int
    end: int


def _open_all(path: Path, files: ExitStack) -> list[_Part]:
    """Returns the newest first. Opens all files before any is read, so that a rotation meanwhile does not matter."""
    parts: dict[str, _Part] = {}
    for one in files_of(path):
        try:
            descriptor = os.open(one, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        files.callback(os.close, descriptor)
        first, line_break, _ = os.pread(descriptor, _MAX_LINE_BYTES, 0).partition(b"\n")
        name = f"{zlib.crc32(first):08x}"
        # A file that was rotated between two opens appears twice.
        if line_break and name not in parts:
            parts[name] = _Part(name, descriptor, 0, os.fstat(descriptor).st_size)
    return list(parts.values())


def _find(parts: Sequence[_Part], cursor: str) -> tuple[int, int]:
    """Returns the index of the cursor's file and the offset in it. Raises ``InvalidCursor``."""
    match = _CURSOR.fullmatch(cursor)
    for index, part in enumerate(parts):
        if match is not None and part.name == match[1] and int(match[2]) <= part.end:
            return index, int(match[2])
    raise InvalidCursor("the cursor is not one that a page of the audit trail gave, or is too old; begin without one")


def _end_of(parts: Sequence[_Part]) -> str:
    """Returns the cursor behind the last whole line."""
    if not parts:
        return _EMPTY
    newest = parts[0]
    start = max(newest.end - _BLOCK_BYTES, 0)
    torn = os.pread(newest.descriptor, newest.end - start, start).rpartition(b"\n")[2]
    return f"{newest.name}-{newest.end - len(torn)}"


def _lines_backward(part: _Part) -> Iterator[tuple[int, bytes]]:
    """Yields each line with the offset of its start, the last first."""
    start, rest = part.end, b""
    while start > 0:
        stop, start = start, max(start - _BLOCK_BYTES, 0)
        block = os.pread(part.descriptor, stop - start, start) + rest
        offset = start + len(block)
        lines = block.split(b"\n")
        rest = lines.pop(0) if start > 0 else b""
        if len(rest) > _MAX_LINE_BYTES:
            rest = b""
        for line in reversed(lines):
            offset -= len(line)
            if line:
                yield offset, line
            offset -= 1


def _lines_forward(part: _Part) -> Iterator[tuple[int, bytes]]:
    """Yields each line with the offset of its end, the first first. A line without a line break is not complete yet."""
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
        if len(rest) > _MAX_LINE_BYTES:
            offset, rest = offset + len(rest), b""
