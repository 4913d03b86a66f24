"""Custom metrics from ``*.prom`` files in a folder, which other programs write: cron jobs, hooks, health checks.

Each file has a report of its own, ``textfile:<file>``, and a broken one does not affect the others. A file is parsed
again only when it has changed. Writers should write another file and rename it, so that no reader sees half of it.
Links and pipes are not read, and errors quote nothing of a file, because others may write the folder.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.safe_files import open_regular
from fleetpulse.worker.collectors import printable
from fleetpulse.worker.collectors.custom_metrics import (
    MAX_TEXT_BYTES,
    SOURCE_NAME_RULE,
    CustomMetricsBudget,
    InvalidMetrics,
    is_source_name,
    metrics_from_text,
)

MAX_FILES = 16


class _File(NamedTuple):
    signature: tuple[int, ...]
    """Changes with the file's content."""

    written_at: float
    """Unix seconds."""

    content: list[pb.CustomMetric] | str
    """The metrics, or why there are none."""


class TextfileCollector:
    """``textfile``: fails when the folder cannot be read. ``clock`` is in Unix seconds, as the files' times are."""

    name = "textfile"

    def __init__(
        self, folder: Path, max_age_seconds: float | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """A file older than ``max_age_seconds`` is reported as failed, and its metrics are left out."""
        self._folder, self._max_age_seconds, self._clock = folder, max_age_seconds, clock
        self._files: dict[str, _File] = {}

    def collect(self) -> pb.Heartbeat:
        """The metrics of every valid file, when each file was written, and a report for each."""
        found = sorted(
            entry.name
            for entry in os.scandir(self._folder)
            if entry.name.endswith(".prom") and not entry.name.startswith(".")
        )
        names = [name for name in found if is_source_name(name)][:MAX_FILES]
        fields = pb.Heartbeat()
        if len(names) < len(found):
            fields.collectors.append(_report("others", _why_left_out(sorted(set(found) - set(names)))))
        files: dict[str, _File] = {}
        for name in names:
            try:
                files[name] = self._read(name)
            except FileNotFoundError:
                continue  # removed meanwhile
            except OSError as error:
                fields.collectors.append(_report(name, error.strerror or str(error)))
        self._files = files
        budget = CustomMetricsBudget()
        if files:
            mtimes = _mtimes(files)
            budget.add([mtimes])
            fields.custom.append(mtimes)
        for name, file in files.items():
            fields.collectors.append(_report(name, self._add(file, budget, fields)))
        return fields

    def _add(self, file: _File, budget: CustomMetricsBudget, fields: pb.Heartbeat) -> str:
        """Adds a file's metrics to ``fields``. Returns why not, or an empty string."""
        if isinstance(file.content, str):
            return file.content
        age_seconds = self._clock() - file.written_at
        if self._max_age_seconds is not None and age_seconds > self._max_age_seconds:
            return f"stale: written {age_seconds:.0f} s ago, {self._max_age_seconds:.0f} s are allowed"
        try:
            budget.add(file.content)
        except InvalidMetrics as error:
            return str(error)
        fields.custom.extend(file.content)
        return ""

    def _read(self, name: str) -> _File:
        # Whoever may write the folder could otherwise have this worker read any file that it may read.
        descriptor, status = open_regular(self._folder / name)
        try:
            signature = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
            known = self._files.get(name)
            if known is not None and known.signature == signature:
                return known
            text = b""
            # One piece more than is allowed, so that metrics_from_text refuses it.
            while len(text) <= MAX_TEXT_BYTES and (piece := os.read(descriptor, MAX_TEXT_BYTES + 1)):
                text += piece
        finally:
            os.close(descriptor)
        try:
            return _File(signature, status.st_mtime, metrics_from_text(text))
        except InvalidMetrics as error:
            return _File(signature, status.st_mtime, error.unquoted)


def _mtimes(files: dict[str, _File]) -> pb.CustomMetric:
    return pb.CustomMetric(
        name="textfile_mtime_seconds",
        type=pb.CUSTOM_TYPE_GAUGE,
        help="When a file of custom metrics was written, Unix seconds.",
        label_names=["file"],
        samples=[pb.CustomSample(label_values=[name], value=file.written_at) for name, file in files.items()],
    )


def _why_left_out(names: list[str]) -> str:
    return f"{len(names)} not read, {names[0][:60]!a} first: at most {MAX_FILES} files; names of {SOURCE_NAME_RULE}"


def _report(file_name: str, error: str) -> pb.CollectorReport:
    return pb.CollectorReport(collector=f"textfile:{file_name}", success=not error, error=printable(error)[:200])
