"""The text of the workers' metrics, kept ready: a scrape joins lines, it renders none.

The text formats want all samples of a family together. So a worker's text is a row, the lines of each family by
themselves, and a scrape joins the rows column by column, with a switch to the hub now and then. Rows are removed with
their worker, so no series can leak.

What a heartbeat changes are numbers. All else, names, labels and the numbers that seldom change, is the worker's
layout: text with holes, made anew only when it differs. So to render a heartbeat is to put its numbers into the holes.
The columns of what seldom changes, half of the text, are joined only when a line of theirs has changed.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import gevent
import orjson

from master.metrics.families import FAMILIES, Family, Labelled, Number, Subject
from master.telemetry.lazy import LazyView
from master.telemetry.records import WorkerTelemetry

BYTES_IN_A_ROW = 512 * 1024
"""Of text joined, about half a millisecond, after which other greenlets have their turn."""

_BETWEEN_FAMILIES = b"\xff"
"""In a layout. UTF-8 has no such byte, so no label has."""

_MISSING = re.compile(rb"[^\n\xff]* null\n")
"""The line of a reading that is not there. Each line ends in its number, and no label has a newline."""


def escape(value: str) -> str:
    """A label value as the text formats want it."""
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return value


class _Section:
    """The families of one subject."""

    def __init__(self, subject: Subject) -> None:
        families = [family for family in FAMILIES if family.subject is subject]
        self.lively = [family for family in families if not family.seldom_changes]
        self.steady = [family for family in families if family.seldom_changes]
        self.items = subject.items
        self.layout_of = attrgetter(*subject.field_by_label.values(), *(family.field for family in self.steady))
        """What the layout depends on, of one item."""

        self.reads = [family.read for family in self.lively]


class _Layout(NamedTuple):
    depends_on: list[Any]
    text: bytes
    """Of the lively families, with a ``%b`` for each reading."""


class _Rows:
    """The lines of some families: a row for each worker, a column for each family."""

    def __init__(self, families: Iterable[Family]) -> None:
        self.families = list(families)
        self.by_worker: dict[str, Sequence[bytes]] = {}

    def join(self, column: int) -> bytes:
        return b"".join([row[column] for row in self.by_worker.values()])


class _SteadyRows(_Rows):
    """Rows of which the joined columns are kept until a line changes."""

    def __init__(self, families: Iterable[Family]) -> None:
        super().__init__(families)
        self._joined: dict[int, bytes] = {}

    def put(self, worker_id: str, row: Sequence[bytes]) -> None:
        before = self.by_worker.get(worker_id) or [b""] * len(row)
        for column, (old, new) in enumerate(zip(before, row, strict=True)):
            if old != new:
                self._joined.pop(column, None)
        self.by_worker[worker_id] = row

    def remove(self, worker_id: str) -> None:
        if self.by_worker.pop(worker_id, None) is not None:
            self._joined.clear()

    def join(self, column: int) -> bytes:
        joined = self._joined.get(column)
        if joined is None:
            joined = self._joined[column] = super().join(column)
        return joined


class FleetExposition(LazyView):
    """Keeps the lines of the live table."""

    def __init__(self) -> None:
        super().__init__()
        sections = [_Section(subject) for subject in _subjects()]
        self._sections = [(section.items, section.layout_of, section.reads) for section in sections]
        self._lively = _Rows(family for section in sections for family in section.lively)
        self._steady = _SteadyRows(family for section in sections for family in section.steady)
        self._layouts: dict[str, _Layout] = {}
        self._columns = [_column_of(family, self._lively, self._steady) for family in FAMILIES]

    def render(self, telemetry: WorkerTelemetry) -> None:
        """Render the worker's lines. An inactive one keeps those that outlive silence; the rest end, and go stale."""
        worker_id = telemetry.worker_id
        if not telemetry.is_active:
            self._render_silent(telemetry)
            return
        depends_on: list[Any] = []
        numbers: list[Number] = []
        for items_of, layout_of, reads in self._sections:
            items = items_of(telemetry)
            depends_on.append([*map(layout_of, items)])
            if items:
                for read in reads:
                    numbers += map(read, items)
        layout = self._layouts.get(worker_id)
        if layout is None or layout.depends_on != depends_on:
            layout = self._layouts[worker_id] = _Layout(depends_on, _text_with_holes(self._lively.families, telemetry))
            self._steady.put(worker_id, [_text(family, telemetry) for family in self._steady.families])
        # All numbers at once: ten times faster than one by one.
        texts = orjson.dumps(numbers)[1:-1].split(b",")
        text = layout.text % tuple(texts)
        if b"null" in texts:
            text = _MISSING.sub(b"", text)
        self._lively.by_worker[worker_id] = text.split(_BETWEEN_FAMILIES)

    def remove(self, worker_id: str) -> None:
        """Drop the worker's lines."""
        self._layouts.pop(worker_id, None)
        self._lively.by_worker.pop(worker_id, None)
        self._steady.remove(worker_id)

    def chunks(self, *, openmetrics: bool) -> Iterator[bytes]:
        """The families, one after the other. Lets other greenlets run in between, so each is consistent in itself."""
        self.catch_up()
        in_a_row = 0
        for headers, rows, column in self._columns:
            yield headers[openmetrics]
            yield (joined := rows.join(column))
            in_a_row += len(joined)
            if in_a_row > BYTES_IN_A_ROW:
                gevent.sleep(0)
                in_a_row = 0

    def _render_silent(self, telemetry: WorkerTelemetry) -> None:
        worker_id = telemetry.worker_id
        lively, steady = (
            [_text(family, telemetry) if family.outlives_silence else b"" for family in rows.families]
            for rows in (self._lively, self._steady)
        )
        self._layouts.pop(worker_id, None)
        self._lively.by_worker[worker_id] = lively
        self._steady.put(worker_id, steady)


def _subjects() -> list[Subject]:
    return list({id(family.subject): family.subject for family in FAMILIES}.values())


def _column_of(family: Family, lively: _Rows, steady: _Rows) -> tuple[tuple[bytes, bytes], _Rows, int]:
    """The family's head in Prometheus text and in OpenMetrics, and where its lines are."""
    headers = [
        # OpenMetrics names a counter's family without the suffix that its samples carry.
        f"# HELP {name} {family.help}\n# TYPE {name} {family.kind}\n".encode()
        for name in (family.name, family.name.removesuffix("_total"))
    ]
    rows = steady if family.seldom_changes else lively
    return (headers[0], headers[1]), rows, rows.families.index(family)


def _text(family: Family, telemetry: WorkerTelemetry) -> bytes:
    return b"".join(
        _start(family, telemetry.worker_id, sample) + f"{sample[1]}\n".encode()
        for sample in family.samples(telemetry)
        if sample[1] is not None
    )


def _text_with_holes(families: Iterable[Family], telemetry: WorkerTelemetry) -> bytes:
    return _BETWEEN_FAMILIES.join(
        b"".join(
            _start(family, telemetry.worker_id, sample).replace(b"%", b"%%") + b"%b\n"
            for sample in family.samples(telemetry)
        )
        for family in families
    )


def _start(family: Family, worker_id: str, sample: Labelled) -> bytes:
    """A sample's line up to the number."""
    labels = zip(family.labels, sample[0], strict=True)
    text = "".join(f',{label}="{escape(value)}"' for label, value in labels)
    return f'{family.name}{{worker_id="{worker_id}"{text}}} '.encode()
