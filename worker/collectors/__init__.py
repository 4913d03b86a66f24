"""Collectors: each reads one kind of fact about this machine, in a file of its own. Nothing registers itself.

    CollectorError
    +-- GpuUnavailable     an NVIDIA driver is or was there and cannot be used (nvml.py)
    +-- InvalidMetrics     custom metrics break a rule (custom_metrics.py)

A collector may raise any other exception too, such as an ``OSError`` from ``/proc``: the sampler reports it and goes
on. A machine that has no disks or no GPUs is no failure: its report is empty.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

from fleetpulse.proto import fleetpulse_pb2 as pb

MAX_ITEMS = 64
"""Most filesystems, disks or interfaces that are reported, so that a heartbeat stays small on any machine.

The master accepts as many of each."""


PROC = Path("/proc")
SYS = Path("/sys")
"""Where Linux shows the machine. Collectors take both as arguments."""


class CollectorError(Exception):
    """A collector could not read what it is for. The message is meant for an operator."""

    fields: pb.Heartbeat | None = None
    """What it knows nevertheless; sent as the fields of a successful call are."""


class Collector(Protocol):
    """Reads one kind of fact about this machine."""

    @property
    def name(self) -> str:
        """One word, unique among the collectors of a worker; a label value on the master's ``/metrics``."""

    def collect(self) -> pb.Heartbeat:
        """Returns a heartbeat with this collector's own fields only; a field that could not be read is absent.

        Called from one thread at a time. May block for as long as the kernel or a driver makes it.
        """


@dataclass(frozen=True, slots=True)
class NamePatterns:
    """What an operator says about the devices of one collector, as shell patterns (``eth*``) for whole names."""

    include: Sequence[str] = ()
    """If there are any, nothing else is reported, and all of these are."""

    exclude: Sequence[str] = ()
    """Never reported. Counts more than ``include``."""

    def decide(self, name: str) -> bool | None:
        """Whether to report the device; ``None`` when the collector decides."""
        if any(fnmatchcase(name, pattern) for pattern in self.exclude):
            return False
        if not self.include:
            return None
        return any(fnmatchcase(name, pattern) for pattern in self.include)


COLLECTOR_DECIDES = NamePatterns()


def left_out(collector: str, count: int) -> list[pb.LeftOut]:
    """For a heartbeat: the collector has so many devices more than ``MAX_ITEMS``."""
    return [pb.LeftOut(collector=collector, count=count)] if count > 0 else []


def read_text(path: Path) -> str:
    """The content of a file of the kernel. Raises ``OSError``. Bytes that are not UTF-8 are kept as surrogates."""
    return path.read_text(encoding="utf-8", errors="surrogateescape")


def read_line(path: Path) -> str | None:
    """The first line of a file of the kernel without its end; ``None`` when it cannot be read."""
    try:
        return read_text(path).partition("\n")[0].strip()
    except OSError:
        return None


def read_number(path: Path) -> int | None:
    """The integer in a file of the kernel; ``None`` when there is none."""
    try:
        return int(read_line(path) or "")
    except ValueError:
        return None


def printable(text: str) -> str:
    """Replaces each character that cannot be printed by a space."""
    return "".join(character if character.isprintable() else " " for character in text)
