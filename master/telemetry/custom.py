"""A worker's own metrics, from the wire to records. Pure, as all of ``intake``.

They are what the operator of a machine makes of them, so nothing about them is believed: on ``/metrics`` they stand
beside everybody else's. What is not a number changes seldom, and is checked once and remembered.
"""

from collections.abc import Sequence
from math import isfinite
from typing import NoReturn

from fleetpulse.master.errors import InvalidMessage, InvalidReading
from fleetpulse.master.telemetry.records import CustomLayout, CustomMetric, CustomSeries
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

_KINDS: dict[int, str] = {
    pb.CUSTOM_TYPE_UNTYPED: "untyped",
    pb.CUSTOM_TYPE_GAUGE: "gauge",
    pb.CUSTOM_TYPE_COUNTER: "counter",
}

Key = tuple[str, int, str, tuple[str, ...], tuple[tuple[str, ...], ...]]

_MAX_KNOWN_LAYOUTS = 2048
_MAX_KNOWN_BYTES = 4096
"""Of one layout: together with the number a bound of the memory that anybody can make the master use."""

_known_layouts: dict[Key, CustomLayout] = {}


def custom_from(items: Sequence[pb.CustomMetric]) -> tuple[CustomMetric, ...]:
    """The own metrics of a heartbeat that has some, checked. Raises ``InvalidMessage``, ``InvalidReading``."""
    _check_most("custom", len(items), MAX_CUSTOM_METRICS, "entries")
    _check_most("custom.samples", sum(len(item.samples) for item in items), MAX_CUSTOM_SAMPLES, "entries in all")
    _check_most("custom", sum(item.ByteSize() for item in items), MAX_CUSTOM_BYTES, "bytes")
    metrics = tuple([_metric_from(item) for item in items])
    if len({metric.layout.family for metric in metrics}) < len(metrics):
        _check_together(metrics)
    return metrics


def _metric_from(item: pb.CustomMetric) -> CustomMetric:
    samples = item.samples[:]
    values = tuple([sample.value for sample in samples])
    for value in values:
        if not isfinite(value):
            raise InvalidReading(f"custom.samples.value of {item.name[:60]!a} is {value}; it must be a finite number")
    label_values = tuple([tuple(sample.label_values) for sample in samples])
    key = (item.name, item.type, item.help, tuple(item.label_names), label_values)
    layout = _known_layouts.get(key)
    if layout is None:
        layout = _layout_from(*key)
        if len(_known_layouts) >= _MAX_KNOWN_LAYOUTS:
            _known_layouts.clear()
        if item.ByteSize() <= _MAX_KNOWN_BYTES:
            _known_layouts[key] = layout
    return CustomMetric(layout, values)


def _layout_from(
    name: str, kind: int, text: str, label_names: tuple[str, ...], label_values: tuple[tuple[str, ...], ...]
) -> CustomLayout:
    if kind not in _KINDS:
        raise InvalidMessage(f"custom.type is {kind}; it must be one of {sorted(_KINDS)}")
    if not is_custom_name(name, is_counter=kind == pb.CUSTOM_TYPE_COUNTER):
        _refuse("custom.name", name, CUSTOM_NAME_RULE)
    _check_text("custom.help", text, MAX_CUSTOM_HELP_LENGTH)
    _check_most("custom.label_names", len(label_names), MAX_CUSTOM_LABELS, "entries")
    for label in label_names:
        if not is_custom_label_name(label):
            _refuse("custom.label_names", label, CUSTOM_LABEL_NAME_RULE)
    if len(set(label_names)) < len(label_names):
        raise InvalidMessage("custom.label_names has one name twice")
    series = tuple([_series_from(label_names, values) for values in label_values])
    if len(set(series)) < len(series):
        raise InvalidMessage(f"custom.samples of {name} has two entries for one series")
    return CustomLayout(name, _KINDS[kind], text, series)


def _series_from(names: tuple[str, ...], values: tuple[str, ...]) -> CustomSeries:
    if len(values) != len(names):
        raise InvalidMessage(f"custom.samples.label_values has {len(values)} entries for {len(names)} label_names")
    for value in values:
        _check_text("custom.samples.label_values", value, MAX_CUSTOM_LABEL_VALUE_LENGTH)
    # An empty label is none, for Prometheus.
    return tuple(sorted([(name, value) for name, value in zip(names, values, strict=True) if value]))


def _check_together(metrics: Sequence[CustomMetric]) -> None:
    """Entries of one name are one family: of one type, and without a series twice."""
    names: dict[str, tuple[str, str]] = {}
    seen: set[tuple[str, CustomSeries]] = set()
    for layout, _ in metrics:
        if names.setdefault(layout.family, (layout.name, layout.kind)) != (layout.name, layout.kind):
            raise InvalidMessage(f"custom has {layout.name} with two types")
        keys = {(layout.family, series) for series in layout.series}
        if not seen.isdisjoint(keys):
            raise InvalidMessage(f"custom.samples of {layout.name} has two entries for one series")
        seen |= keys


def _check_text(field: str, text: str, most: int) -> None:
    if len(text) > most or not text.isprintable():
        _refuse(field, text, f"at most {most} printable characters")


def _check_most(field: str, number: int, most: int, what: str) -> None:
    if number > most:
        raise InvalidMessage(f"{field} has {number} {what}; at most {most} are accepted")


def _refuse(field: str, text: str, rule: str) -> NoReturn:
    shown = text if len(text) <= 60 else text[:57] + "..."
    raise InvalidMessage(f"{field} {shown!a} is refused: it must be {rule}")
