"""A parser of the master's Prometheus text, fast enough for half a million samples."""

import math
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)(?: \S+)?")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")


class Sample(NamedTuple):
    """One sample line."""

    name: str
    labels: dict[str, str]
    value: float
    line: str


class Family(NamedTuple):
    """A metric family of the text format 0.0.4."""

    name: str
    kind: str
    help: str
    samples: list[Sample]


def samples(text: str) -> Iterator[Sample]:
    """Every sample."""
    for line in text.splitlines():
        if line and line[0] != "#" and (match := _SAMPLE.fullmatch(line)):
            yield Sample(match["name"], _labels(match["labels"] or ""), float(match["value"]), line)


def fleet_families(text: str) -> list[Family]:
    """The families with samples of workers, from text format 0.0.4, without histograms."""
    families: dict[str, Family] = {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, _, words = line[len("# HELP ") :].partition(" ")
            families[name] = Family(name, "untyped", words, [])
        elif line.startswith("# TYPE "):
            name, _, kind = line[len("# TYPE ") :].partition(" ")
            families[name] = families[name]._replace(kind=kind)
    for sample in samples(text):
        if "worker_id" in sample.labels:
            families[sample.name].samples.append(sample)
    return [family for family in families.values() if family.samples]


class Scrape:
    """The master's own metrics at one time, and sums over the metrics of its workers."""

    def __init__(self, text: str) -> None:
        self._values: dict[str, list[Sample]] = {}
        for sample in samples(text):
            self._values.setdefault(sample.name, []).append(sample)

    def total(self, name: str, **labels: str) -> float:
        """Sum of the samples with these labels; 0 when there is none."""
        return math.fsum(s.value for s in self._values.get(name, ()) if labels.items() <= s.labels.items())

    def count(self, name: str, value: float) -> int:
        """The number of samples with this value."""
        return sum(sample.value == value for sample in self._values.get(name, ()))

    def buckets(self, name: str) -> dict[float, float]:
        """Cumulative counts of a histogram without labels, by upper bound."""
        return {float(s.labels["le"]): s.value for s in self._values.get(f"{name}_bucket", ())}


def quantile_between(before: Scrape, after: Scrape, name: str, quantile: float) -> float | None:
    """A quantile of the observations between two scrapes of a histogram; ``None`` without observations.

    Interpolated within its bucket as PromQL's ``histogram_quantile`` does; what lies beyond the last bound is infinite.
    """
    earlier = before.buckets(name)
    counts = {bound: count - earlier.get(bound, 0.0) for bound, count in after.buckets(name).items()}
    return quantile_of(counts.items(), quantile)


def quantile_of(buckets: Iterable[tuple[float, float]], quantile: float) -> float | None:
    """The quantile of cumulative (upper bound, count)."""
    ordered = sorted(buckets)
    total = ordered[-1][1] if ordered else 0.0
    if not total:
        return None
    rank = quantile * total
    low_bound = low_count = 0.0
    for bound, count in ordered:
        if count >= rank and count > low_count:
            return low_bound + (bound - low_bound) * (rank - low_count) / (count - low_count)
        low_bound, low_count = bound, count
    return math.inf


def _labels(text: str) -> dict[str, str]:
    return {name: _unescaped(value) if "\\" in value else value for name, value in _LABEL.findall(text)}


def _unescaped(value: str) -> str:
    return _ESCAPED.sub(lambda match: "\n" if match[1] == "n" else match[1], value)
