"""Custom metrics of an operator, made fit for a heartbeat: from prometheus_client's metric families and its text. Pure.

All or nothing: one sample that breaks a rule, and the source gives none, so that no graph shows half of it. Four things
are corrected instead: a description is cut to fit, a sample that is not a finite number or a counter's below 0 is left
out, a counter's name gets the ``_total`` that it lacks, and an untyped metric with such a name becomes a counter.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isfinite
from typing import Any, TextIO, TypeAlias, cast

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_fd_to_metric_families
from prometheus_client.samples import Sample

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import (
    CUSTOM_LABEL_NAME_RULE,
    CUSTOM_NAME_RULE,
    MAX_CUSTOM_BYTES,
    MAX_CUSTOM_HELP_LENGTH,
    MAX_CUSTOM_LABEL_VALUE_LENGTH,
    MAX_CUSTOM_LABELS,
    MAX_CUSTOM_METRICS,
    MAX_CUSTOM_SAMPLES,
    is_custom_label_name,
    is_custom_name,
)
from fleetpulse.worker.collectors import CollectorError, printable

MAX_TEXT_BYTES = 64 * 1024
"""Of one file or one command's output. The parser takes tens of milliseconds for that."""

MAX_LINE_LENGTH = 4096
"""A longer line could only be valid with an endless description, and the parser is slow with it."""

SOURCE_NAME_RULE = "letters, digits, '._-', at most 64 of them, the first a letter or a digit"
_SOURCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)

_Type: TypeAlias = "pb.CustomType.ValueType"
_Series = tuple[str, tuple[tuple[str, str], ...]]


class InvalidMetrics(CollectorError):
    """A source of custom metrics breaks a rule or failed. The message names the fault and the rule."""

    def __init__(self, message: str, unquoted: str | None = None) -> None:
        """``unquoted``: the message without a word of the source, for one that may be a stranger's file."""
        super().__init__(message)
        self.unquoted = message if unquoted is None else unquoted


class InvalidSource(ValueError):
    """A configured source of custom metrics cannot be used. The message is for the operator."""


def is_source_name(name: str) -> bool:
    """Whether a plug-in, a command or a file may have this name; the rule in words is ``SOURCE_NAME_RULE``."""
    return _SOURCE_NAME.fullmatch(name) is not None


def check_source_name(kind: str, name: str) -> None:
    """Raises ``InvalidSource``."""
    if not is_source_name(name):
        raise InvalidSource(f"{kind} {name[:80]!a}: a name is made of {SOURCE_NAME_RULE}")


def metrics_from_text(text: bytes) -> list[pb.CustomMetric]:
    """Parses Prometheus' text format. Raises ``InvalidMetrics``, with the line where there is one.

    The last line must end with a newline: a text that was cut off could end in half of a number.
    """
    if len(text) > MAX_TEXT_BYTES:
        raise InvalidMetrics(f"more than {MAX_TEXT_BYTES} bytes")
    if text and not text.endswith(b"\n"):
        raise InvalidMetrics("the last line has no end, so the text may be cut off")
    line_number = 0

    def lines() -> Iterator[str]:
        nonlocal line_number
        for line in text.split(b"\n"):
            line_number += 1
            if len(line) > MAX_LINE_LENGTH:
                raise InvalidMetrics(f"a line of more than {MAX_LINE_LENGTH} bytes")
            yield line.decode()

    try:
        # The parser only iterates over its file.
        return metrics_from_families(text_fd_to_metric_families(cast("TextIO", lines())))
    except InvalidMetrics as error:
        raise InvalidMetrics(f"{error} (by line {line_number})", f"{error.unquoted} (by line {line_number})") from error
    except Exception as error:
        message = f"line {line_number} is not Prometheus' text format"
        raise InvalidMetrics(f"{message}: {error}" if str(error) else message, message) from error


def metrics_from_families(families: Iterable[Metric]) -> list[pb.CustomMetric]:
    """One entry for each name and set of labels. Raises ``InvalidMetrics``, and whatever ``families`` raises.

    Stops reading ``families`` at the limit, so an endless one does no harm.
    """
    metrics: dict[tuple[str, _Type, tuple[str, ...]], pb.CustomMetric] = {}
    samples = 0
    for number, family in enumerate(families):
        if not isinstance(family, Metric):
            raise InvalidMetrics(f"a {type(family).__name__} is no metric family of prometheus_client")
        kept = [sample for sample in family.samples if not _is_creation_time(family, sample)]
        samples += len(kept)
        if number >= MAX_CUSTOM_SAMPLES or samples > MAX_CUSTOM_SAMPLES:
            raise InvalidMetrics(f"more than {MAX_CUSTOM_SAMPLES} samples")
        for sample in kept:
            name, kind = _name_and_type(family)
            value, labels = _value_and_labels(name, sample)
            if not isfinite(value) or (kind == pb.CUSTOM_TYPE_COUNTER and value < 0):
                continue
            label_names = tuple(label for label, _ in labels)
            metric = metrics.get((name, kind, label_names))
            if metric is None:
                help_text = printable(str(family.documentation)[:MAX_CUSTOM_HELP_LENGTH])
                metric = pb.CustomMetric(name=name, type=kind, help=help_text, label_names=label_names)
                metrics[name, kind, label_names] = metric
            metric.samples.add(label_values=[text for _, text in labels], value=value)
    return list(metrics.values())


def _is_creation_time(family: Metric, sample: Sample) -> bool:
    return family.type == "counter" and sample.name == f"{family.name}_created"


def _name_and_type(family: Metric) -> tuple[str, _Type]:
    is_counter = family.type == "counter" or (family.type == "unknown" and family.name.endswith("_total"))
    types = {"unknown": pb.CUSTOM_TYPE_UNTYPED, "gauge": pb.CUSTOM_TYPE_GAUGE}
    kind = pb.CUSTOM_TYPE_COUNTER if is_counter else types.get(family.type)
    if kind is None:
        problem = "gauges, counters and untyped metrics are accepted"
        raise InvalidMetrics(f"{family.name} is a {family.type}; {problem}", f"a metric of another type; {problem}")
    name = f"{family.name.removesuffix('_total')}_total" if is_counter else family.name
    if not is_custom_name(name, is_counter=is_counter):
        problem = f"is refused: it must be {CUSTOM_NAME_RULE}"
        raise InvalidMetrics(f"name {name[:60]!a} {problem}", f"a name {problem}")
    return name, kind


def _value_and_labels(name: str, sample: Sample) -> tuple[float, list[tuple[str, str]]]:
    if sample.name != name:
        raise InvalidMetrics(
            f"sample {sample.name} does not belong to {name}", "a sample does not belong to its metric"
        )
    if sample.timestamp is not None:
        problem = "has a timestamp; only readings of now are accepted"
        raise InvalidMetrics(f"{name} {problem}", f"a metric {problem}")
    try:
        value = float(sample.value)
    except (TypeError, ValueError, OverflowError) as error:  # from a plug-in
        problem = "has a value that is no number"
        raise InvalidMetrics(f"{name} {problem}: {str(sample.value)[:40]!a}", f"a metric {problem}") from error
    return value, _labels(name, sample.labels)


def _labels(name: str, labels: Mapping[Any, Any]) -> list[tuple[str, str]]:
    """Sorted, without empty ones: to Prometheus an empty label is no label."""
    if len(labels) > MAX_CUSTOM_LABELS:
        problem = f"has {len(labels)} labels; at most {MAX_CUSTOM_LABELS} are accepted"
        raise InvalidMetrics(f"{name} {problem}", f"a metric {problem}")
    for label, text in labels.items():
        if not isinstance(label, str) or not is_custom_label_name(label):
            problem = f"is refused: it must be {CUSTOM_LABEL_NAME_RULE}"
            raise InvalidMetrics(f"label {str(label)[:60]!a} of {name} {problem}", f"a label {problem}")
        if not isinstance(text, str) or len(text) > MAX_CUSTOM_LABEL_VALUE_LENGTH or not text.isprintable():
            problem = f"it must be at most {MAX_CUSTOM_LABEL_VALUE_LENGTH} printable characters"
            raise InvalidMetrics(
                f"label {label} of {name} is {str(text)[:40]!a}; {problem}", f"a label's value is refused: {problem}"
            )
    return sorted((label, text) for label, text in labels.items() if text)


class CustomMetricsBudget:
    """Keeps the custom metrics of one heartbeat, or of one source, within the rules.

    The master refuses a heartbeat that breaks a rule as a whole. So a source that would break one is left out here, and
    the sources before it stay.
    """

    def __init__(self) -> None:
        self._metrics = self._bytes = 0
        self._names: dict[str, tuple[str, int]] = {}
        self._series: set[_Series] = set()

    def add(self, metrics: Sequence[pb.CustomMetric]) -> None:
        """Counts these metrics in. Raises ``InvalidMetrics`` and then counts none of them."""
        names = dict(self._names)
        for metric in metrics:
            # OpenMetrics calls a counter's family by its name without _total.
            typed = metric.name, metric.type
            if names.setdefault(metric.name.removesuffix("_total"), typed) != typed:
                raise InvalidMetrics(f"{metric.name} comes with two types; the lines of one metric must stand together")
        series = set(self._series)
        for one in _series_of(metrics):
            if one in series:
                raise InvalidMetrics(f"{_format_series(one)} comes twice")
            series.add(one)
        size = self._bytes + sum(metric.ByteSize() for metric in metrics)
        for number, limit, unit in (
            (len(series), MAX_CUSTOM_SAMPLES, "samples"),
            (self._metrics + len(metrics), MAX_CUSTOM_METRICS, "metrics, each counted once for each set of labels"),
            (size, MAX_CUSTOM_BYTES, "bytes"),
        ):
            if number > limit:
                raise InvalidMetrics(f"all sources together would have {number} {unit}; at most {limit} are sent")
        self._names, self._series, self._bytes = names, series, size
        self._metrics += len(metrics)

    def add_valid(self, metrics: Sequence[pb.CustomMetric]) -> list[pb.CustomMetric]:
        """Counts in those metrics that break no rule, and returns them."""
        valid = []
        for metric in metrics:
            with contextlib.suppress(InvalidMetrics):
                self.add([metric])
                valid.append(metric)
        return valid


def _series_of(metrics: Sequence[pb.CustomMetric]) -> Iterator[_Series]:
    for metric in metrics:
        labels = tuple(metric.label_names)
        for sample in metric.samples:
            yield metric.name, tuple(zip(labels, sample.label_values, strict=True))


def _format_series(series: _Series) -> str:
    name, labels = series
    return f"{name}{{{','.join(f'{label}={value!a}' for label, value in labels)}}}"[:120]
