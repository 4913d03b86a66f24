"""What several sources of own metrics may say together, in one heartbeat. Pure.

The master refuses a heartbeat that breaks a rule, with all that is in it. So whoever would break one is kept out here,
and whoever came before stays.
"""

import contextlib
from collections.abc import Iterator, Sequence

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import MAX_CUSTOM_BYTES, MAX_CUSTOM_METRICS, MAX_CUSTOM_SAMPLES
from fleetpulse.worker.collectors.custom.wire import BadMetrics

Series = tuple[str, tuple[tuple[str, str], ...]]


class Gathering:
    """The own metrics of one heartbeat, or of one source of them, as they come together."""

    def __init__(self) -> None:
        self._metrics = self._bytes = 0
        self._names: dict[str, tuple[str, int]] = {}
        self._series: set[Series] = set()

    def add(self, metrics: Sequence[pb.CustomMetric]) -> None:
        """Take these in, too. Raises ``BadMetrics``; then none of them is."""
        names = dict(self._names)
        for metric in metrics:
            # A counter's name without its end is what OpenMetrics calls the family.
            named = metric.name, metric.type
            if names.setdefault(metric.name.removesuffix("_total"), named) != named:
                raise BadMetrics(f"{metric.name} comes with two types; the lines of one metric must stand together")
        series = set(self._series)
        for one in _series_of(metrics):
            if one in series:
                raise BadMetrics(f"{_shown(one)} comes twice")
            series.add(one)
        size = self._bytes + sum(metric.ByteSize() for metric in metrics)
        _check("samples", len(series), MAX_CUSTOM_SAMPLES)
        _check("metrics, each counted once for each set of labels", self._metrics + len(metrics), MAX_CUSTOM_METRICS)
        _check("bytes", size, MAX_CUSTOM_BYTES)
        self._names, self._series, self._bytes = names, series, size
        self._metrics += len(metrics)

    def add_what_fits(self, metrics: Sequence[pb.CustomMetric]) -> list[pb.CustomMetric]:
        """Take in those of them that break no rule; which they are."""
        fitting = []
        for metric in metrics:
            with contextlib.suppress(BadMetrics):
                self.add([metric])
                fitting.append(metric)
        return fitting


def _series_of(metrics: Sequence[pb.CustomMetric]) -> Iterator[Series]:
    for metric in metrics:
        labels = tuple(metric.label_names)
        for sample in metric.samples:
            yield metric.name, tuple(zip(labels, sample.label_values, strict=True))


def _shown(series: Series) -> str:
    name, labels = series
    return f"{name}{{{','.join(f'{label}={value!a}' for label, value in labels)}}}"[:120]


def _check(what: str, number: int, most: int) -> None:
    if number > most:
        raise BadMetrics(f"all sources together would have {number} {what}; at most {most} are sent")
