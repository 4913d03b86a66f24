"""The text of the workers' metrics, kept ready: a scrape joins lines, it renders none.

The text formats want all samples of a family together, so the lines are kept by family and then by worker. A heartbeat
renders its own worker's lines (tens of microseconds, in that worker's greenlet); a scrape is one join a family, with a
switch to the hub between families, and a family in which nothing changed since the last scrape (sizes, names, collector
success) is not even joined. Lines are removed with their worker, so no series can leak.
"""

from collections.abc import Iterator

import gevent

from master.metrics.families import FAMILIES, Family
from master.telemetry.records import WorkerTelemetry


def escape(value: str) -> str:
    """A label value as the text formats want it."""
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return value


class _Column:
    """One family's lines by worker id."""

    __slots__ = ("_joined", "_label_starts", "_lines", "_prefix", "_value", "_values", "family", "headers")

    def __init__(self, family: Family) -> None:
        self.family = family
        self.headers = tuple(
            # OpenMetrics names a counter's family without the suffix that its samples carry.
            f"# HELP {name} {family.help}\n# TYPE {name} {family.kind}\n".encode()
            for name in (family.name, family.name.removesuffix("_total"))
        )
        self._value = family.value
        self._values = family.values
        self._prefix = f'{family.name}{{worker_id="'
        self._label_starts = tuple(f',{label}="' for label in family.labels)
        self._lines: dict[str, str] = {}
        self._joined: bytes | None = None

    def put(self, telemetry: WorkerTelemetry) -> None:
        worker_id = telemetry.worker_id
        text = self._rendered(telemetry)
        if text != self._lines.get(worker_id, ""):
            self._joined = None
            if text:
                self._lines[worker_id] = text
            else:
                del self._lines[worker_id]

    def remove(self, worker_id: str) -> None:
        if self._lines.pop(worker_id, None) is not None:
            self._joined = None

    def joined(self) -> bytes:
        if self._joined is None:
            self._joined = "".join(self._lines.values()).encode()
        return self._joined

    def _rendered(self, telemetry: WorkerTelemetry) -> str:
        if self._value is not None:
            value = self._value(telemetry)
            return "" if value is None else f'{self._prefix}{telemetry.worker_id}"}} {value}\n'
        assert self._values is not None
        start = f'{self._prefix}{telemetry.worker_id}"'
        return "".join(
            [
                f"{start}{self._label_text(labels)}}} {value}\n"
                for labels, value in self._values(telemetry)
                if value is not None
            ]
        )

    def _label_text(self, values: tuple[str, ...]) -> str:
        text = ""
        for start, value in zip(self._label_starts, values, strict=True):
            text += f'{start}{escape(value)}"'
        return text


class FleetExposition:
    """Keeps the lines of the live table. An observer of the TelemetryManager."""

    def __init__(self, families: tuple[Family, ...] = FAMILIES) -> None:
        self._columns = [_Column(family) for family in families]

    def worker_changed(self, telemetry: WorkerTelemetry) -> None:
        """Render the worker's lines. An inactive one keeps those that outlive silence; the rest end, and go stale."""
        for column in self._columns:
            if telemetry.is_active or column.family.outlives_silence:
                column.put(telemetry)
            else:
                column.remove(telemetry.worker_id)

    def worker_removed(self, worker_id: str) -> None:
        """Drop the worker's lines."""
        for column in self._columns:
            column.remove(worker_id)

    def chunks(self, *, openmetrics: bool) -> Iterator[bytes]:
        """The families, one after the other. Lets other greenlets run in between, so each is consistent in itself."""
        for column in self._columns:
            yield column.headers[openmetrics]
            yield column.joined()
            gevent.sleep(0)
