"""The families of one subject, and what text they make of a worker."""

from operator import attrgetter
from typing import Any

from fleetpulse.master.metrics.families import FAMILIES, Subject
from fleetpulse.master.telemetry.records import WorkerTelemetry


def escape(value: str) -> str:
    """A label value as the text formats want it."""
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return value


class Section:
    """The families of one subject: the lively ones, whose numbers change with every heartbeat, and the steady ones."""

    def __init__(self, subject: Subject) -> None:
        families = [family for family in FAMILIES if family.subject is subject]
        self.lively = [family for family in families if not family.seldom_changes]
        self.steady = [family for family in families if family.seldom_changes]
        self.items = subject.items
        self.layout_of = attrgetter(*subject.field_by_label.values(), *(family.field for family in self.steady))
        """Of one item, all that the two texts below depend on."""

        self.lively_reads = [family.read for family in self.lively]
        self._steady_reads = [family.read for family in self.steady]
        self._labels = [(f',{label}="', attrgetter(field)) for label, field in subject.field_by_label.items()]

    def lay_out(self, telemetry: WorkerTelemetry) -> tuple[list[bytes], list[bytes]]:
        """The lines of each lively family, with a ``%b`` for each number, and those of each steady family."""
        items = self.items(telemetry)
        if not items:
            return [b""] * len(self.lively), [b""] * len(self.steady)
        middles = [self._middle(telemetry.worker_id, item) for item in items]
        escaped = [middle.replace("%", "%%") for middle in middles]
        with_holes = ["".join([f"{family.name}{middle}%b\n" for middle in escaped]) for family in self.lively]
        written_out = [
            "".join(
                [
                    f"{family.name}{middle}{number}\n"
                    for middle, number in zip(middles, map(read, items), strict=True)
                    if number is not None
                ]
            )
            for family, read in zip(self.steady, self._steady_reads, strict=True)
        ]
        return [*map(str.encode, with_holes)], [*map(str.encode, written_out)]

    def _middle(self, worker_id: str, item: Any) -> str:
        """What is between a line's name and its number."""
        labels = "".join([f'{label}{escape(str(read(item)))}"' for label, read in self._labels])
        return f'{{worker_id="{worker_id}"{labels}}} '


def all_sections() -> list[Section]:
    """One for each subject, in the order in which ``FAMILIES`` names them first."""
    return [Section(subject) for subject in {id(family.subject): family.subject for family in FAMILIES}.values()]
