"""From metric families, as prometheus_client has them, to what goes over the wire. Pure.

All or nothing: one sample that breaks a rule, and the source gives none, so that nobody plots half of what was meant.
Some things are set right instead: a description is cut to fit, and a sample that is no finite number is left out, being
no reading. A counter's name gets the ``_total`` that it lacks, and what has such a name and no type is a counter.
"""

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import (
    CUSTOM_LABEL_NAME_RULE,
    CUSTOM_NAME_RULE,
    MAX_CUSTOM_HELP_LENGTH,
    MAX_CUSTOM_LABEL_VALUE_LENGTH,
    MAX_CUSTOM_LABELS,
    MAX_CUSTOM_SAMPLES,
    is_custom_label_name,
    is_custom_name,
)
from fleetpulse.worker.collectors.base import CollectorError

_TYPES: "Mapping[str, pb.CustomType.ValueType]" = {
    "unknown": pb.CUSTOM_TYPE_UNTYPED,
    "gauge": pb.CUSTOM_TYPE_GAUGE,
}

Parts = dict[tuple[str, "pb.CustomType.ValueType", tuple[str, ...]], pb.CustomMetric]


class BadMetrics(CollectorError):
    """What a source of own metrics says breaks a rule, or it says nothing. The message names what and the rule."""


def to_wire(families: Iterable[Metric]) -> list[pb.CustomMetric]:
    """One entry for each name and set of labels. Raises ``BadMetrics``, and whatever ``families`` does.

    An endless ``families`` is given up.
    """
    parts: Parts = {}
    samples = 0
    for number, family in enumerate(families):
        if not isinstance(family, Metric):
            raise BadMetrics(f"a {type(family).__name__} is no metric family of prometheus_client")
        kept = [sample for sample in family.samples if not _is_creation_time(family, sample)]
        samples += len(kept)
        if number >= MAX_CUSTOM_SAMPLES or samples > MAX_CUSTOM_SAMPLES:
            raise BadMetrics(f"more than {MAX_CUSTOM_SAMPLES} samples")
        for sample in kept:
            _add(parts, family, sample)
    return list(parts.values())


def _is_creation_time(family: Metric, sample: Sample) -> bool:
    return family.type == "counter" and sample.name == f"{family.name}_created"


def _add(parts: Parts, family: Metric, sample: Sample) -> None:
    kind = pb.CUSTOM_TYPE_COUNTER if _is_counter(family) else _TYPES.get(family.type)
    if kind is None:
        raise BadMetrics(f"{family.name} is a {family.type}; gauges, counters and untyped metrics are accepted")
    name = _name_of(family)
    if sample.name != name:
        raise BadMetrics(f"sample {sample.name} does not belong to {name}")
    if sample.timestamp is not None:
        raise BadMetrics(f"{name} has a timestamp; only readings of now are accepted")
    value = _number(name, sample.value)
    labels = _labels(name, sample.labels)
    if not isfinite(value):
        return
    key = name, kind, tuple(label for label, _ in labels)
    part = parts.get(key)
    if part is None:
        part = parts[key] = pb.CustomMetric(name=name, type=kind, help=_help(family), label_names=key[2])
    part.samples.add(label_values=[text for _, text in labels], value=value)


def _is_counter(family: Metric) -> bool:
    return family.type == "counter" or (family.type == "unknown" and family.name.endswith("_total"))


def _name_of(family: Metric) -> str:
    is_counter = _is_counter(family)
    name = f"{family.name.removesuffix('_total')}_total" if is_counter else family.name
    if not is_custom_name(name, is_counter=is_counter):
        raise BadMetrics(f"name {name[:60]!a} is refused: it must be {CUSTOM_NAME_RULE}")
    return name


def _number(name: str, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]  # whatever a plug-in gives; what is no number raises
    except (TypeError, ValueError, OverflowError) as error:
        raise BadMetrics(f"{name} has a value that is no number: {str(value)[:40]!a}") from error


def _labels(name: str, labels: Mapping[Any, Any]) -> list[tuple[str, str]]:
    """Sorted. An empty label is none, for Prometheus."""
    if len(labels) > MAX_CUSTOM_LABELS:
        raise BadMetrics(f"{name} has {len(labels)} labels; at most {MAX_CUSTOM_LABELS} are accepted")
    for label, text in labels.items():
        if not isinstance(label, str) or not is_custom_label_name(label):
            raise BadMetrics(f"label {str(label)[:60]!a} of {name} is refused: it must be {CUSTOM_LABEL_NAME_RULE}")
        if not isinstance(text, str) or len(text) > MAX_CUSTOM_LABEL_VALUE_LENGTH or not text.isprintable():
            raise BadMetrics(
                f"label {label} of {name} is {str(text)[:40]!a}; it must be at most {MAX_CUSTOM_LABEL_VALUE_LENGTH} "
                "printable characters"
            )
    return sorted((label, text) for label, text in labels.items() if text)


def _help(family: Metric) -> str:
    text = str(family.documentation)[:MAX_CUSTOM_HELP_LENGTH]
    return "".join(character if character.isprintable() else " " for character in text)
