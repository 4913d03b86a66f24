"""Own metrics out of ``*.prom`` files in a folder, which other programs write: cron jobs, hooks, health checks.

Each file has a report of its own, ``textfile:<file>``, and one that is broken takes nothing from the others. A file is
parsed again only when it has changed. Write another file and rename it, so that nobody reads half of one.
"""

import os
import re
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors.custom.gathering import Gathering
from fleetpulse.worker.collectors.custom.text import MAX_TEXT_BYTES, metrics_from_text
from fleetpulse.worker.collectors.custom.wire import BadMetrics

MAX_FILES = 16
FILE_NAME_RULE = "letters, digits, '._-', at most 64 of them, the first a letter or a digit"
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,58}\.prom", re.ASCII)


class _File(NamedTuple):
    """What was read. ``said`` is the metrics, or why there are none."""

    signature: tuple[int, ...]
    written_at: float
    said: list[pb.CustomMetric] | str


class TextfileCollector:
    """``textfile``: fails when the folder cannot be read. ``wall`` is in Unix seconds, as the files' times are."""

    name = "textfile"

    def __init__(
        self, folder: Path, max_age_seconds: float | None = None, wall: Callable[[], float] = time.time
    ) -> None:
        """A file that was not written for ``max_age_seconds`` is reported, and gives nothing any more."""
        self._folder = folder
        self._max_age_seconds = max_age_seconds
        self._wall = wall
        self._files: dict[str, _File] = {}

    def collect(self) -> pb.Heartbeat:
        """The metrics of every file that keeps the rules, and when each was written; a report for each file."""
        found = sorted(entry.name for entry in os.scandir(self._folder) if _is_meant(entry.name))
        names = [name for name in found if _FILE_NAME.fullmatch(name)][:MAX_FILES]
        reports = [_report("textfile:others", _why_not(set(found) - set(names)))] if len(names) < len(found) else []
        files: dict[str, _File] = {}
        for name in names:
            try:
                files[name] = self._read(name)
            except FileNotFoundError:
                continue  # removed meanwhile
            except (BadMetrics, OSError) as error:
                reports.append(_report(f"textfile:{name}", str(error)))
        self._files = files
        gathering, fields = Gathering(), pb.Heartbeat()
        if files:
            written = _times(files)
            gathering.add([written])
            fields.custom.append(written)
        for name, file in files.items():
            reports.append(_report(f"textfile:{name}", self._take(file, gathering, fields)))
        fields.collectors.extend(reports)
        return fields

    def _take(self, file: _File, gathering: Gathering, fields: pb.Heartbeat) -> str:
        """Add what a file says to the fields; what is wrong with it, or nothing."""
        if isinstance(file.said, str):
            return file.said
        age_seconds = self._wall() - file.written_at
        if self._max_age_seconds is not None and age_seconds > self._max_age_seconds:
            return f"stale: written {age_seconds:.0f} s ago, {self._max_age_seconds:.0f} s are allowed"
        try:
            gathering.add(file.said)
        except BadMetrics as error:
            return str(error)
        fields.custom.extend(file.said)
        return ""

    def _read(self, name: str) -> _File:
        # Without O_NONBLOCK, to open a named pipe would wait for its writer.
        descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BadMetrics("not a regular file")
            signature = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
            known = self._files.get(name)
            if known is not None and known.signature == signature:
                return known
            text = _all_of(descriptor)
        finally:
            os.close(descriptor)
        try:
            said: list[pb.CustomMetric] | str = metrics_from_text(text)
        except BadMetrics as error:
            said = str(error)
        return _File(signature, status.st_mtime, said)


def _is_meant(name: str) -> bool:
    return name.endswith(".prom") and not name.startswith(".")


def _all_of(descriptor: int) -> bytes:
    """The text, and of one that is too long enough to see that."""
    text = b""
    while len(text) <= MAX_TEXT_BYTES and (piece := os.read(descriptor, MAX_TEXT_BYTES + 1)):
        text += piece
    return text


def _times(files: dict[str, _File]) -> pb.CustomMetric:
    return pb.CustomMetric(
        name="textfile_mtime_seconds",
        type=pb.CUSTOM_TYPE_GAUGE,
        help="When a file of own metrics was written, Unix seconds.",
        label_names=["file"],
        samples=[pb.CustomSample(label_values=[name], value=file.written_at) for name, file in files.items()],
    )


def _why_not(names: Iterable[str]) -> str:
    shown = sorted(names)
    return f"{len(shown)} not read, {shown[0][:60]!a} first: at most {MAX_FILES} files; names of {FILE_NAME_RULE}"


def _report(collector: str, error: str) -> pb.CollectorReport:
    printable = "".join(character if character.isprintable() else " " for character in error)
    return pb.CollectorReport(collector=collector, success=not error, error=printable[:200])
