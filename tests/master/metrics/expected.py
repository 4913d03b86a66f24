"""The samples that a family must have, worked out without the exposition."""

from operator import attrgetter

from fleetpulse.master.metrics.families import Family, Number
from fleetpulse.master.telemetry.records import WorkerTelemetry


def expected_samples(family: Family, telemetry: WorkerTelemetry) -> list[tuple[tuple[str, ...], Number]]:
    """Of each sample the values of its labels beside worker_id, unescaped, and the reading, perhaps ``None``."""
    fields = family.subject.field_by_label.values()
    return [
        (tuple(str(attrgetter(field)(item)) for field in fields), family.read(item))
        for item in family.subject.items(telemetry)
    ]
