"""Collectors: each reads one kind of fact about this machine, in a file of its own. Nothing registers itself.

    CollectorError
    +-- NothingReadable    every filesystem of this machine refused to be read (filesystem.py)
    +-- GpuUnavailable     an NVIDIA driver is or was there and cannot be used (gpu.py)
    +-- InvalidMetrics     custom metrics break a rule (custom_metrics.py)

A collector may raise any other exception too, such as an ``OSError`` from ``/proc``: the sampler reports it and goes
on. A machine that has no disks or no GPUs is no failure: its report is empty.
"""

from typing import Protocol

from fleetpulse.proto import fleetpulse_pb2 as pb

MAX_ITEMS = 16
"""Most filesystems, disks or interfaces that are reported, so that a heartbeat stays small on any machine."""


class CollectorError(Exception):
    """A collector could not read what it is for. The message is meant for an operator."""


class Collector(Protocol):
    """Reads one kind of fact about this machine."""

    @property
    def name(self) -> str:
        """One word, unique among the collectors of a worker; a label value on the master's ``/metrics``."""

    def collect(self) -> pb.Heartbeat:
        """Returns a heartbeat with this collector's own fields only; a field that could not be read is absent.

        Called from one thread at a time. May block for as long as the kernel or a driver makes it.
        """


def valid_utf8(name: str) -> str:
    """Replaces bytes that are not UTF-8: protobuf refuses them, the kernel allows them in paths and interface names."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def printable(text: str) -> str:
    """Replaces each character that cannot be printed by a space."""
    return "".join(character if character.isprintable() else " " for character in text)
