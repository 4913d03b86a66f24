"""The text of the workers' custom metrics, whose families come and go with what operators measure.

A family belongs to the fleet: its type and description are those of the worker that sent it first. Samples of another
type are dropped, and so are counters below 0 and samples over the limits; a gauge shows how many are dropped at
present. Series end with their worker, and a family with its last series.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

import orjson
from prometheus_client import Gauge

from fleetpulse.master.telemetry.readings import CustomLayout, CustomMetric

PREFIX = "fleetpulse_custom_"

MAX_FAMILIES = 512
MAX_SAMPLES = 50_000
"""Of the whole fleet, about 5 MB of text."""

NO_HELP = "A custom metric of workers, without a description."

TYPE_CONFLICT = "type_conflict"
NEGATIVE_COUNTER = "negative_counter"
TOO_MANY_FAMILIES = "too_many_families"
TOO_MANY_SAMPLES = "too_many_samples"


class _Family:
    """One family of the fleet: the headers of the worker that sent it first, and the lines of each worker."""

    __slots__ = ("headers", "kind", "lines", "name")

    def __init__(self, layout: CustomLayout) -> None:
        self.name, self.kind = layout.name, layout.kind
        self.headers = _headers(layout)
        self.lines: dict[str, bytes] = {}


class CustomFamilies:
    """Lines by family and worker. On the hub; nothing here switches."""

    def __init__(self, max_families: int = MAX_FAMILIES, max_samples: int = MAX_SAMPLES) -> None:
        self._max_families, self._max_samples = max_families, max_samples
        self._families: dict[str, _Family] = {}
        self._shown: dict[str, int] = {}
        """By worker that has custom metrics, how many of its samples are shown."""

        self._samples = 0
        self._dropped: dict[str, Counter[str]] = {}

    def __contains__(self, worker_id: str) -> bool:
        return worker_id in self._shown

    def put(self, worker_id: str, metrics: Sequence[CustomMetric]) -> None:
        """Show these of the worker, in place of what it had."""
        self.remove(worker_id)
        if not metrics:
            return
        dropped: Counter[str] = Counter()
        before = self._samples
        for metric in metrics:
            if metric.values and (reason := self._show(worker_id, metric)) is not None:
                dropped[reason] += len(metric.values)
        self._shown[worker_id] = self._samples - before
        if dropped:
            self._dropped[worker_id] = dropped

    def remove(self, worker_id: str) -> None:
        """Drop the worker's lines, if there are any."""
        if worker_id not in self._shown:
            return
        self._samples -= self._shown.pop(worker_id)
        self._dropped.pop(worker_id, None)
        for key in [key for key, family in self._families.items() if family.lines.pop(worker_id, None) is not None]:
            if not self._families[key].lines:
                del self._families[key]

    def chunks(self, *, openmetrics: bool) -> Iterator[bytes]:
        """The families by name. Families may come and go meanwhile."""
        for key in sorted(self._families):
            family = self._families.get(key)
            if family is not None:
                yield family.headers[openmetrics]
                yield b"".join(family.lines.values())

    def dropped(self, reason: str) -> int:
        """How many samples are dropped now, for this reason."""
        return sum(counts[reason] for counts in self._dropped.values())

    def report_to(self, gauge: Gauge) -> None:
        """Let the gauge, whose label is the reason, show what is dropped."""
        for reason in (TYPE_CONFLICT, NEGATIVE_COUNTER, TOO_MANY_FAMILIES, TOO_MANY_SAMPLES):
            gauge.labels(reason).set_function(partial(self.dropped, reason))

    def _show(self, worker_id: str, metric: CustomMetric) -> str | None:
        """Add the lines; or why not."""
        layout = metric.layout
        family = self._families.get(layout.family)
        if family is not None and (family.name, family.kind) != (layout.name, layout.kind):
            return TYPE_CONFLICT
        # OpenMetrics does not allow it, so one such sample would make the whole text invalid.
        if layout.kind == "counter" and min(metric.values) < 0:
            return NEGATIVE_COUNTER
        if family is None and len(self._families) >= self._max_families:
            return TOO_MANY_FAMILIES
        if self._samples + len(metric.values) > self._max_samples:
            return TOO_MANY_SAMPLES
        if family is None:
            family = self._families[layout.family] = _Family(layout)
        family.lines[worker_id] = family.lines.get(worker_id, b"") + _lines(worker_id, metric)
        self._samples += len(metric.values)
        return None


def escape(value: str) -> str:
    """A label value as the text formats want it."""
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return value


def _lines(worker_id: str, metric: CustomMetric) -> bytes:
    start = f'{PREFIX}{metric.layout.name}{{worker_id="{worker_id}"'
    # All numbers at once: ten times faster than one by one.
    numbers = orjson.dumps(metric.values)[1:-1].decode().split(",")
    lines = []
    for series, number in zip(metric.layout.series, numbers, strict=True):
        labels = "".join([f',{name}="{escape(value)}"' for name, value in series])
        lines.append(f"{start}{labels}}} {number}\n")
    return "".join(lines).encode()


def _headers(layout: CustomLayout) -> tuple[bytes, bytes]:
    """In Prometheus text, and in OpenMetrics, which has another name for a counter, for untyped, and for quotes."""
    text = (layout.help or NO_HELP).replace("\\", r"\\")
    name, family = PREFIX + layout.name, PREFIX + layout.family
    kind = "unknown" if layout.kind == "untyped" else layout.kind
    quoted = text.replace('"', r"\"")
    return (
        f"# HELP {name} {text}\n# TYPE {name} {layout.kind}\n".encode(),
        f"# HELP {family} {quoted}\n# TYPE {family} {kind}\n".encode(),
    )
