"""Reads the trail page by page: from its end, or what came after a page. Blocks, so it is for a native thread."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from fleetpulse.master.audit.entry import AuditOutcome, fields_of, needle_of
from fleetpulse.master.audit.parts import after, before, end_of, lines_backward, lines_forward, opened

MOST_READ_BYTES = 32 * 1024 * 1024
"""For one page. Where what is asked for is rare, a page may end before it is full, or be empty, and another follow."""

_CLOCK_STEP_SECONDS = 60.0
"""The clock may have been put back by so much between two entries."""


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

    after: str | None = None
    """``AuditPage.newest`` of another page: only what was written since, the oldest first."""


class AuditPage(NamedTuple):
    """Entries as their fields by name."""

    entries: list[dict[str, Any]]
    next_cursor: str | None
    """``None`` when there is nothing older, and on a page that was asked for by ``after``."""

    newest: str | None
    """From where on there is what this page, and those that follow it by ``next_cursor``, do not have yet."""


def read_page(path: Path, query: AuditQuery, most_read_bytes: int = MOST_READ_BYTES) -> AuditPage:
    """Raises ``InvalidCursor``, and ``OSError`` when a file cannot be read."""
    look = _Look(query)
    if query.after is not None:
        return _newer(path, look, query.after, most_read_bytes)
    return _older(path, look, query.cursor, most_read_bytes)


class _Look:
    """What is looked for, and has been found."""

    def __init__(self, query: AuditQuery) -> None:
        self.entries: list[dict[str, Any]] = []
        self._limit, self._since = query.limit, query.since
        names = ("actor", "action", "outcome")
        self._wanted = {name: value for name in names if (value := getattr(query, name)) is not None}
        self._needles = [needle_of(name, value) for name, value in self._wanted.items()]

    def entry(self, line: bytes) -> dict[str, Any] | None:
        """What is in a line that may be of interest; most need not be parsed, but for their time."""
        is_of_interest = self._since is not None or all(needle in line for needle in self._needles)
        return fields_of(line) if is_of_interest else None

    def is_before(self, entry: dict[str, Any] | None, margin_seconds: float = 0.0) -> bool:
        """Whether the entry is older than anything that is looked for."""
        since = self._since
        return entry is not None and since is not None and entry["time"] < since - margin_seconds

    def takes(self, entry: dict[str, Any] | None) -> bool:
        """Whether there was room for what was found, if it was."""
        if entry is not None and self._wanted.items() <= entry.items() and not self.is_before(entry):
            if len(self.entries) == self._limit:
                return False
            self.entries.append(entry)
        return True


def _older(path: Path, look: _Look, cursor: str | None, most_read_bytes: int) -> AuditPage:
    place, read_bytes = None, 0
    with ExitStack() as files:
        parts = opened(path, files)
        newest = end_of(parts) if cursor is None else None
        for part in parts if cursor is None else before(parts, cursor):
            for offset, line in lines_backward(part):
                read_bytes += len(line) + 1
                entry = look.entry(line)
                if look.is_before(entry, _CLOCK_STEP_SECONDS):
                    return AuditPage(look.entries, None, newest)
                if not look.takes(entry):
                    return AuditPage(look.entries, place, newest)
                place = f"{part.name}-{offset}"
                if read_bytes >= most_read_bytes:
                    return AuditPage(look.entries, place, newest)
    return AuditPage(look.entries, None, newest)


def _newer(path: Path, look: _Look, place: str, most_read_bytes: int) -> AuditPage:
    read_bytes = 0
    with ExitStack() as files:
        for part in after(opened(path, files), place):
            for offset, line in lines_forward(part):
                read_bytes += len(line) + 1
                if not look.takes(look.entry(line)):
                    return AuditPage(look.entries, None, place)
                place = f"{part.name}-{offset}"
                if read_bytes >= most_read_bytes:
                    return AuditPage(look.entries, None, place)
    return AuditPage(look.entries, None, place)
