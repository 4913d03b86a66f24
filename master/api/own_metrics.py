"""The JSON of a worker's own metrics."""

from collections.abc import Sequence
from typing import Any

from fleetpulse.master.telemetry.records import CustomMetric


def own_samples(metrics: Sequence[CustomMetric]) -> list[dict[str, Any]]:
    """One object a sample, each complete, so that one line of jq finds it."""
    return [
        {"name": layout.name, "type": layout.kind, "labels": dict(series), "value": value}
        for layout, values in metrics
        for series, value in zip(layout.series, values, strict=True)
    ]
