"""``GET /metrics``. The text of the workers is kept ready: a scrape joins lines, it renders none.

The text formats want all samples of a family together, so the lines are kept in columns, one for each family, with a
place for each worker. Lines are removed with their worker, so no series can leak.

What a heartbeat changes are numbers. All else (names, labels, and the numbers that seldom change) is the worker's
layout: text with holes, made anew only when it differs. So to render a heartbeat is to put its numbers into the holes.
The static families, half of the text, are joined only when a line of theirs has changed.
"""

import time
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

import falcon
import orjson
from falcon.util import mediatypes
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics_exposition

from fleetpulse.master.hub_queue import give_way
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.metrics.budget import NOT_ASSIGNED, NameBudget, TaskCheck
from fleetpulse.master.metrics.custom import CustomFamilies, escape
from fleetpulse.master.metrics.families import DEVICES, FAMILIES, RUNNING_TASKS, Family, Number, Subject
from fleetpulse.master.telemetry.lazy_view import LazyView, SteadyLines
from fleetpulse.master.telemetry.records import Clock, WorkerTelemetry

BYTES_IN_A_ROW = 512 * 1024
"""Of text joined, about half a millisecond, after which other greenlets have their turn."""

_BETWEEN_FAMILIES = b"\xff"
"""In a layout. UTF-8 has no such byte, so no label has."""

_MISSING = b" null\n"
"""Ends the line of a reading that is not there. Each line ends in its number, and no label has a newline."""

_TEXT = "text/plain; version=0.0.4"
_OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class MetricsResource:
    """``/metrics``: the fleet's series and the master's own, as Prometheus text or OpenMetrics, by ``Accept``."""

    def __init__(self, fleet: "FleetExposition", instruments: Instruments) -> None:
        self._fleet = fleet
        self._instruments = instruments

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        started = time.perf_counter()
        is_openmetrics = _wants_openmetrics((req.get_header("Accept") or "").lower())
        parts = list(self._fleet.chunks(openmetrics=is_openmetrics))
        # The master's own part goes last: in OpenMetrics it brings the "# EOF" that must end the text.
        parts.append(_encoded(self._instruments.registry, is_openmetrics=is_openmetrics))
        resp.content_type = f"{_OPENMETRICS}; charset=utf-8" if is_openmetrics else CONTENT_TYPE_PLAIN_0_0_4
        resp.append_header("Vary", "Accept")
        resp.stream = parts
        self._instruments.exposition.duration.observe(time.perf_counter() - started)

    on_head = on_get


def _wants_openmetrics(accept: str) -> bool:
    """Whether ``Accept``, in lower case, prefers OpenMetrics to plain text. Raises ``falcon.HTTPNotAcceptable``.

    Who names neither, or a version that does not exist, gets plain text, and so does a header that breaks the grammar.
    """
    if not accept:
        return False
    try:
        text, openmetrics_text = (mediatypes.quality(kind, accept) for kind in (_TEXT, _OPENMETRICS))
    except ValueError:
        return False
    if text or openmetrics_text:
        is_named = "openmetrics" in accept
        return openmetrics_text > text or (openmetrics_text == text and is_named)
    if any(map(_refuses_text, accept.split(","))):
        raise falcon.HTTPNotAcceptable(description="the metrics are text/plain or application/openmetrics-text")
    return False


def _refuses_text(part: str) -> bool:
    """Whether a valid part of ``Accept`` gives plain text the quality 0."""
    kind, parameters = mediatypes.parse_header(part)
    return kind.strip() in {"*/*", "text/*", "text/plain"} and float(parameters.get("q", 1.0)) == 0.0


def _encoded(registry: CollectorRegistry, *, is_openmetrics: bool) -> bytes:
    """The master's own part. Whatever ``escaping`` says, its names stay as they are, as those of the workers do."""
    if not is_openmetrics:
        return generate_latest(registry)
    text: bytes = openmetrics_exposition.generate_latest(registry)  # type: ignore[no-untyped-call]
    return text


class _Layout(NamedTuple):
    depends_on: list[Any]
    text: bytes
    """The volatile families' lines, with a ``%b`` for each number."""


class FleetExposition(LazyView):
    """Keeps the lines of the live table."""

    renders_ahead = True

    def __init__(
        self,
        has_task: TaskCheck = lambda _worker_id, _task_id, _attempt: True,
        budget: NameBudget | None = None,
        clock: Clock = Clock(),  # noqa: B008 - an immutable pair of functions
    ) -> None:
        """Of running tasks, those are shown that ``has_task``; by default, all that workers report."""
        super().__init__(clock)
        self._has_task = has_task
        subjects = {id(family.subject): family.subject for family in FAMILIES}
        self._sections = [_Section(subject) for subject in subjects.values()]
        self._tasks_at = next(n for n, section in enumerate(self._sections) if section.is_of_tasks)
        self._with_tasks: set[str] = set()
        """The workers that reported tasks last time."""

        self._needs = [(section.layout_of, section.volatile_reads) for section in self._sections]
        self._volatile = [family for section in self._sections for family in section.volatile]
        self._static = [family for section in self._sections for family in section.static]
        self._volatile_columns = Columns(len(self._volatile))
        self._static_columns = StaticColumns(len(self._static))
        self._layouts: dict[str, _Layout] = {}
        self._headers = [_headers(family) for family in FAMILIES]
        self.custom = CustomFamilies()
        self.budget = NameBudget() if budget is None else budget

    def render(self, telemetry: WorkerTelemetry) -> None:
        """Render the worker's lines. An inactive one keeps those that outlive silence; the rest end, and go stale."""
        worker_id = telemetry.worker_id
        items = self._items(telemetry)
        depends_on, numbers = self._read(items)
        layout = self._layouts.get(worker_id)
        if layout is None or layout.depends_on != depends_on:
            if self._leave_out(worker_id, items, depends_on, layout):
                depends_on, numbers = self._read(items)
            if layout is None or layout.depends_on != depends_on:
                layout = self._layouts[worker_id] = _Layout(depends_on, self._lay_out(telemetry, items))
        # All numbers at once: ten times faster than one by one.
        texts = orjson.dumps(numbers)[1:-1].split(b",")
        text = layout.text % tuple(texts)
        if b"null" in texts:
            text = _without_missing(text)
        self._volatile_columns.put(worker_id, _shown(telemetry, self._volatile, text.split(_BETWEEN_FAMILIES)))
        custom = telemetry.reading.custom
        if custom or worker_id in self.custom:
            self.custom.put(worker_id, custom if telemetry.is_active else ())

    def has_rendered(self, worker_id: str) -> bool:
        """Whether the worker's lines are laid out."""
        return worker_id in self._layouts

    def settle(self) -> None:
        """Join the static families."""
        for number in range(len(self._static)):
            self._static_columns.join(number)
            give_way()

    def remove(self, worker_id: str) -> None:
        """Drop the worker's lines."""
        self._layouts.pop(worker_id, None)
        self._with_tasks.discard(worker_id)
        self._volatile_columns.remove(worker_id)
        self._static_columns.remove(worker_id)
        self.custom.remove(worker_id)
        self.budget.remove(worker_id)

    def chunks(self, *, openmetrics: bool) -> Iterator[bytes]:
        """The families, one after the other. Lets other greenlets run in between, so each is consistent in itself."""
        self.catch_up()
        in_a_row = 0
        for chunk in chain(self._family_chunks(openmetrics), self.custom.chunks(openmetrics=openmetrics)):
            yield chunk
            in_a_row += len(chunk)
            if in_a_row > BYTES_IN_A_ROW:
                give_way()
                in_a_row = 0

    def _family_chunks(self, openmetrics: bool) -> Iterator[bytes]:
        for family, headers in zip(FAMILIES, self._headers, strict=True):
            yield headers[openmetrics]
            if family.static:
                yield self._static_columns.join(self._static.index(family))
            else:
                yield self._volatile_columns.join(self._volatile.index(family))

    def _items(self, telemetry: WorkerTelemetry) -> list[Sequence[Any]]:
        """What each section is about, without the tasks that are not the worker's."""
        worker_id, reported = telemetry.worker_id, telemetry.reading.running_tasks
        items = [section.items(telemetry) for section in self._sections]
        if reported or worker_id in self._with_tasks:
            own = [task for task in reported if self._has_task(worker_id, task.task_id, task.attempt)]
            items[self._tasks_at] = own
            self.budget.note_left_out(worker_id, NOT_ASSIGNED, len(reported) - len(own))
            (self._with_tasks.add if reported else self._with_tasks.discard)(worker_id)
        return items

    def _read(self, items: Sequence[Sequence[Any]]) -> tuple[list[Any], list[Number]]:
        """What the layout depends on, and the numbers that go into its holes."""
        depends_on: list[Any] = []
        numbers: list[Number] = []
        for found, (layout_of, reads) in zip(items, self._needs, strict=True):
            # How many follow; a list of its own for each section would take 1 KB a worker.
            depends_on.append(len(found))
            if found:
                depends_on += map(layout_of, found)
                for read in reads:
                    numbers += map(read, found)
        return depends_on, numbers

    def _leave_out(
        self, worker_id: str, items: list[Sequence[Any]], depends_on: Sequence[Any], layout: "_Layout | None"
    ) -> bool:
        """Take the devices out of ``items`` that the worker's budget has no room for; whether there are any."""
        reported = self._device_names(depends_on)
        before = frozenset(() if layout is None else self._device_names(layout.depends_on))
        hidden = self.budget.admit(worker_id, reported, before, self._clock.monotonic())
        names = iter(reported)
        for number, section in enumerate(self._sections) if hidden else ():
            if section.is_of_devices:
                items[number] = [item for item in items[number] if next(names) not in hidden]
        return bool(hidden)

    def _device_names(self, depends_on: Sequence[Any]) -> list[Hashable]:
        """In the order of the items; each with the number of its section."""
        names: list[Hashable] = []
        start = 0
        for number, section in enumerate(self._sections):
            end = start + 1 + depends_on[start]
            if section.is_of_devices:
                names += [(number, section.names_in(known)) for known in depends_on[start + 1 : end]]
            start = end
        return names

    def _lay_out(self, telemetry: WorkerTelemetry, items: Sequence[Sequence[Any]]) -> bytes:
        """Render the static families; returns the volatile families' lines, with holes."""
        with_holes: list[bytes] = []
        written_out: list[bytes] = []
        for section, found in zip(self._sections, items, strict=True):
            volatile, static = section.lay_out(telemetry.worker_id, found)
            with_holes += volatile
            written_out += static
        self._static_columns.put(telemetry.worker_id, _shown(telemetry, self._static, written_out))
        return _BETWEEN_FAMILIES.join(with_holes)


def _shown(telemetry: WorkerTelemetry, families: Iterable[Family], row: Sequence[bytes]) -> Sequence[bytes]:
    """The lines of each family that the worker's state lets stand."""
    if telemetry.is_active:
        return row
    return [lines if family.outlives_silence else b"" for family, lines in zip(families, row, strict=True)]


def _without_missing(text: bytes) -> bytes:
    """Drop the lines of readings that are not there."""
    pieces: list[bytes] = []
    start = 0
    while (end := text.find(_MISSING, start)) >= 0:
        before = max(text.rfind(b"\n", start, end), text.rfind(_BETWEEN_FAMILIES, start, end), start - 1)
        pieces.append(text[start : before + 1])
        start = end + len(_MISSING)
    return b"".join((*pieces, text[start:]))


def _headers(family: Family) -> tuple[bytes, bytes]:
    """In Prometheus text, and in OpenMetrics, which names a counter without the suffix that its samples carry."""
    text, openmetrics = (
        f"# HELP {name} {family.help}\n# TYPE {name} {family.kind}\n".encode()
        for name in (family.name, family.name.removesuffix("_total"))
    )
    return text, openmetrics


class _Section:
    """The families of one subject: the volatile ones change with every heartbeat, the static ones seldom."""

    def __init__(self, subject: Subject) -> None:
        families = [family for family in FAMILIES if family.subject is subject]
        self.volatile = [family for family in families if not family.static]
        self.static = [family for family in families if family.static]
        self.items = subject.items
        self.is_of_tasks = subject is RUNNING_TASKS
        self.is_of_devices = subject in DEVICES
        fields = [*subject.field_by_label.values(), *(family.field for family in self.static)]
        self._labels_count, self._fields_count = len(subject.field_by_label), len(fields)
        self.layout_of = attrgetter(*fields)
        """Of one item, all that the two texts of ``lay_out`` depend on."""

        self.volatile_reads = [family.read for family in self.volatile]
        self._static_reads = [family.read for family in self.static]
        self._labels = [(f',{label}="', attrgetter(field)) for label, field in subject.field_by_label.items()]

    def names_in(self, of_layout: Any) -> Hashable:
        """The values of an item's labels, from what ``layout_of`` returned."""
        names: Hashable = of_layout[: self._labels_count] if self._fields_count > 1 else of_layout
        return names

    def lay_out(self, worker_id: str, items: Sequence[Any]) -> tuple[list[bytes], list[bytes]]:
        """The lines of each volatile family, with a ``%b`` for each number, and those of each static family."""
        if not items:
            return [b""] * len(self.volatile), [b""] * len(self.static)
        middles = [self._middle(worker_id, item) for item in items]
        escaped = [middle.replace("%", "%%") for middle in middles]
        with_holes = ["".join([f"{family.name}{middle}%b\n" for middle in escaped]) for family in self.volatile]
        written_out = [
            "".join(
                [
                    f"{family.name}{middle}{number}\n"
                    for middle, number in zip(middles, map(read, items), strict=True)
                    if number is not None
                ]
            )
            for family, read in zip(self.static, self._static_reads, strict=True)
        ]
        return [*map(str.encode, with_holes)], [*map(str.encode, written_out)]

    def _middle(self, worker_id: str, item: Any) -> str:
        """The part of a line between its name and its number."""
        labels = "".join([f'{label}{escape(str(read(item)))}"' for label, read in self._labels])
        return f'{{worker_id="{worker_id}"{labels}}} '


class Columns:
    """Lines of text, in ``count`` columns. A row are the lines of one worker, one for each column, perhaps empty.

    A scrape joins columns as they are. A place that its worker left is given to the next one that comes.
    """

    def __init__(self, count: int) -> None:
        self._columns: list[list[bytes]] = [[] for _ in range(count)]
        self._nothing = [b""] * count
        self._places: dict[str, int] = {}
        self._vacant: list[int] = []

    def put(self, worker_id: str, row: Sequence[bytes]) -> None:
        """Set the worker's lines."""
        place = self._place(worker_id)
        for column, line in zip(self._columns, row, strict=True):
            column[place] = line

    def remove(self, worker_id: str) -> None:
        """Drop the worker's lines, if there are any."""
        if worker_id in self._places:
            self.put(worker_id, self._nothing)
            self._vacant.append(self._places.pop(worker_id))

    def join(self, number: int) -> bytes:
        """The text of a column."""
        return b"".join(self._columns[number])

    def _place(self, worker_id: str) -> int:
        place = self._places.get(worker_id)
        if place is None:
            if self._vacant:
                place = self._vacant.pop()
            else:
                place = len(self._places)
                for column in self._columns:
                    column.append(b"")
            self._places[worker_id] = place
        return place


class StaticColumns(Columns):
    """Columns that seldom change: the text of each is kept until one of its lines does."""

    def __init__(self, count: int) -> None:
        super().__init__(0)
        self._nothing = [b""] * count
        self._static = [SteadyLines() for _ in range(count)]

    def put(self, worker_id: str, row: Sequence[bytes]) -> None:
        place = self._place(worker_id)
        for column, line in zip(self._static, row, strict=True):
            column.put(place, line)

    def join(self, number: int) -> bytes:
        return self._static[number].join()
