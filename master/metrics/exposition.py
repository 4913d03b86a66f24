"""The text of the workers' metrics, kept ready: a scrape joins lines, it renders none.

The text formats want all samples of a family together, so the lines are kept by family and then by worker. A scrape is
one join a family, with a switch to the hub now and then. Lines are removed with their worker, so no series can leak.

What a heartbeat changes are numbers. All else, names, labels and the numbers that seldom change, is the worker's
layout: text with holes, made anew only when it differs. So to render a heartbeat is to put its numbers into the holes.
The families that seldom change, half of the text, are joined only when a line of theirs has changed.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import gevent
import orjson

from fleetpulse.master.metrics.columns import Columns, StaticColumns
from fleetpulse.master.metrics.custom import CustomFamilies
from fleetpulse.master.metrics.families import FAMILIES, Family, Number
from fleetpulse.master.metrics.sections import all_sections
from fleetpulse.master.telemetry.lazy import LazyView
from fleetpulse.master.telemetry.records import WorkerTelemetry

BYTES_IN_A_ROW = 512 * 1024
"""Of text joined, about half a millisecond, after which other greenlets have their turn."""

_BETWEEN_FAMILIES = b"\xff"
"""In a layout. UTF-8 has no such byte, so no label has."""

_MISSING = re.compile(rb"[^\n\xff]* null\n")
"""The line of a reading that is not there. Each line ends in its number, and no label has a newline."""


class _Layout(NamedTuple):
    depends_on: list[Any]
    text: bytes
    """The lively families' lines, with a ``%b`` for each number."""


class FleetExposition(LazyView):
    """Keeps the lines of the live table."""

    def __init__(self) -> None:
        super().__init__()
        self._sections = all_sections()
        self._needs = [(section.items, section.layout_of, section.lively_reads) for section in self._sections]
        self._lively = [family for section in self._sections for family in section.lively]
        self._steady = [family for section in self._sections for family in section.steady]
        self._lively_columns = Columns(len(self._lively))
        self._steady_columns = StaticColumns(len(self._steady))
        self._layouts: dict[str, _Layout] = {}
        self._headers = [_headers(family) for family in FAMILIES]
        self.custom = CustomFamilies()

    def render(self, telemetry: WorkerTelemetry) -> None:
        """Render the worker's lines. An inactive one keeps those that outlive silence; the rest end, and go stale."""
        worker_id = telemetry.worker_id
        depends_on: list[Any] = []
        numbers: list[Number] = []
        for items_of, layout_of, reads in self._needs:
            items = items_of(telemetry)
            # How many follow; a list of its own for each section would take 1 KB a worker.
            depends_on.append(len(items))
            if items:
                depends_on += map(layout_of, items)
                for read in reads:
                    numbers += map(read, items)
        layout = self._layouts.get(worker_id)
        if layout is None or layout.depends_on != depends_on:
            layout = self._layouts[worker_id] = _Layout(depends_on, self._lay_out(telemetry))
        # All numbers at once: ten times faster than one by one.
        texts = orjson.dumps(numbers)[1:-1].split(b",")
        text = layout.text % tuple(texts)
        if b"null" in texts:
            text = _MISSING.sub(b"", text)
        self._lively_columns.put(worker_id, _shown(telemetry, self._lively, text.split(_BETWEEN_FAMILIES)))
        custom = telemetry.reading.custom
        if custom or worker_id in self.custom:
            self.custom.put(worker_id, custom if telemetry.is_active else ())

    def remove(self, worker_id: str) -> None:
        """Drop the worker's lines."""
        self._layouts.pop(worker_id, None)
        self._lively_columns.remove(worker_id)
        self._steady_columns.remove(worker_id)
        self.custom.remove(worker_id)

    def chunks(self, *, openmetrics: bool) -> Iterator[bytes]:
        """The families, one after the other. Lets other greenlets run in between, so each is consistent in itself."""
        self.catch_up()
        in_a_row = 0
        for family, headers in zip(FAMILIES, self._headers, strict=True):
            yield headers[openmetrics]
            yield (joined := self._joined(family))
            in_a_row += len(joined)
            if in_a_row > BYTES_IN_A_ROW:
                gevent.sleep(0)
                in_a_row = 0
        yield from self.custom.chunks(openmetrics=openmetrics)

    def _joined(self, family: Family) -> bytes:
        if family.seldom_changes:
            return self._steady_columns.join(self._steady.index(family))
        return self._lively_columns.join(self._lively.index(family))

    def _lay_out(self, telemetry: WorkerTelemetry) -> bytes:
        """Render what seldom changes; returns the lively families' lines, with holes."""
        with_holes: list[bytes] = []
        written_out: list[bytes] = []
        for section in self._sections:
            lively, steady = section.lay_out(telemetry)
            with_holes += lively
            written_out += steady
        self._steady_columns.put(telemetry.worker_id, _shown(telemetry, self._steady, written_out))
        return _BETWEEN_FAMILIES.join(with_holes)


def _shown(telemetry: WorkerTelemetry, families: Iterable[Family], row: Sequence[bytes]) -> Sequence[bytes]:
    """Of the lines of each family, those that the worker's state lets stand."""
    if telemetry.is_active:
        return row
    return [lines if family.outlives_silence else b"" for family, lines in zip(families, row, strict=True)]


def _headers(family: Family) -> tuple[bytes, bytes]:
    """In Prometheus text, and in OpenMetrics, which names a counter without the suffix that its samples carry."""
    text, openmetrics = (
        f"# HELP {name} {family.help}\n# TYPE {name} {family.kind}\n".encode()
        for name in (family.name, family.name.removesuffix("_total"))
    )
    return text, openmetrics
