"""The text of the workers' metrics, kept ready: a scrape joins lines, it renders none.

The text formats want all samples of a family together, so the lines are kept by family and then by worker. A scrape is
one join a family, with a switch to the hub now and then. Families that seldom change are half of the text: they are
rendered when a reading differs from the last one, and joined when one was rendered. Lines are removed with their
worker, so no series can leak.
"""

from collections.abc import Iterator
from typing import Any

import gevent

from master.metrics.families import FAMILIES, Family, Labelled
from master.telemetry.lazy import LazyView
from master.telemetry.records import WorkerTelemetry

BYTES_IN_A_ROW = 512 * 1024
"""Of text joined, about half a millisecond, after which other greenlets have their turn."""


def escape(value: str) -> str:
    """A label value as the text formats want it."""
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return value


class _Column:
    """One family's lines by worker id."""

    __slots__ = ("_joined", "_label_starts", "family", "headers", "lines", "prefix", "read")

    def __init__(self, family: Family) -> None:
        self.family = family
        self.read = family.read
        self.headers = tuple(
            # OpenMetrics names a counter's family without the suffix that its samples carry.
            f"# HELP {name} {family.help}\n# TYPE {name} {family.kind}\n".encode()
            for name in (family.name, family.name.removesuffix("_total"))
        )
        self.prefix = f'{family.name}{{worker_id="'
        self.lines: dict[str, str] = {}
        self._label_starts = tuple(f',{label}="' for label in family.labels)
        self._joined: bytes | None = None

    def put(self, worker_id: str, reading: Any) -> None:
        """Render the worker's lines of this family; of a family that seldom changes, when they have."""
        if reading is None or reading == []:
            self.lines.pop(worker_id, None)
        elif self._label_starts:
            self.lines[worker_id] = self._labelled_text(f'{self.prefix}{worker_id}"', reading)
        else:
            self.lines[worker_id] = f'{self.prefix}{worker_id}"}} {reading}\n'
        self._joined = None

    def remove(self, worker_id: str) -> None:
        if self.lines.pop(worker_id, None) is not None:
            self._joined = None

    def joined(self) -> bytes:
        joined = self._joined
        if joined is None:
            joined = "".join(self.lines.values()).encode()
            if self.family.seldom_changes:
                self._joined = joined
        return joined

    def _labelled_text(self, start: str, readings: list[Labelled]) -> str:
        text = ""
        for labels, value in readings:
            if value is not None:
                text += start
                for label_start, label in zip(self._label_starts, labels, strict=True):
                    text += f'{label_start}{escape(label)}"'
                text += f"}} {value}\n"
        return text


class FleetExposition(LazyView):
    """Keeps the lines of the live table."""

    def __init__(self, families: tuple[Family, ...] = FAMILIES) -> None:
        super().__init__()
        self._columns = [_Column(family) for family in families]
        self._lively = [column for column in self._columns if not column.family.seldom_changes]
        self._lively_numbers = [
            (column.read, column.prefix, column.lines) for column in self._lively if not column.family.labels
        ]
        self._lively_lists = [column for column in self._lively if column.family.labels]
        self._steady = [column for column in self._columns if column.family.seldom_changes]
        self._steady_readings: dict[str, list[Any]] = {}

    def render(self, telemetry: WorkerTelemetry) -> None:
        """Render the worker's lines. An inactive one keeps those that outlive silence; the rest end, and go stale."""
        worker_id = telemetry.worker_id
        # The innermost loop of the heartbeat path: what `put` does, without the calls.
        for read, prefix, lines in self._lively_numbers:
            value = read(telemetry)
            if value is None:
                lines.pop(worker_id, None)
            else:
                lines[worker_id] = f'{prefix}{worker_id}"}} {value}\n'
        for column in self._lively_lists:
            readings = column.read(telemetry)
            if readings or worker_id in column.lines:
                column.put(worker_id, readings)
        self._render_steady(worker_id, [column.read(telemetry) for column in self._steady])
        if not telemetry.is_active:
            for column in self._columns:
                if not column.family.outlives_silence:
                    column.remove(worker_id)

    def remove(self, worker_id: str) -> None:
        """Drop the worker's lines."""
        self._steady_readings.pop(worker_id, None)
        for column in self._columns:
            column.remove(worker_id)

    def chunks(self, *, openmetrics: bool) -> Iterator[bytes]:
        """The families, one after the other. Lets other greenlets run in between, so each is consistent in itself."""
        self.catch_up()
        in_a_row = 0
        for column in self._columns:
            yield column.headers[openmetrics]
            yield (joined := column.joined())
            in_a_row += len(joined)
            if in_a_row > BYTES_IN_A_ROW:
                gevent.sleep(0)
                in_a_row = 0

    def _render_steady(self, worker_id: str, readings: list[Any]) -> None:
        if readings != self._steady_readings.get(worker_id):
            self._steady_readings[worker_id] = readings
            for column, reading in zip(self._steady, readings, strict=True):
                column.put(worker_id, reading)
