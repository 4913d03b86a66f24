"""The families of one subject, and what text they make of a worker."""

from collections.abc import Iterator
from operator import attrgetter

from master.metrics.families import FAMILIES, Subject
from master.telemetry.records import WorkerTelemetry


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

    def with_holes(self, telemetry: WorkerTelemetry) -> Iterator[bytes]:
        """The lines of each lively family, with a ``%b`` for each number."""
        middles = [middle.replace("%", "%%") for middle in self._middles(telemetry)]
        for family in self.lively:
            yield "".join([f"{family.name}{middle}%b\n" for middle in middles]).encode()

    def written_out(self, telemetry: WorkerTelemetry) -> Iterator[bytes]:
        """The lines of each steady family."""
        items, middles = self.items(telemetry), self._middles(telemetry)
        for family, read in zip(self.steady, self._steady_reads, strict=True):
            numbered = zip(middles, map(read, items), strict=True)
            lines = [f"{family.name}{middle}{number}\n" for middle, number in numbered if number is not None]
            yield "".join(lines).encode()

    def _middles(self, telemetry: WorkerTelemetry) -> list[str]:
        """What is between a line's name and its number, for each item."""
        start = f'{{worker_id="{telemetry.worker_id}"'
        return [
            start + "".join([f'{label}{escape(str(read(item)))}"' for label, read in self._labels]) + "} "
            for item in self.items(telemetry)
        ]


def all_sections() -> list[Section]:
    """One for each subject, in the order in which ``FAMILIES`` names them first."""
    return [Section(subject) for subject in {id(family.subject): family.subject for family in FAMILIES}.values()]
