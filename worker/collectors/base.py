"""What a collector is, and how one fails.

    CollectorError
    +-- NothingReadable    every one of the things that this machine has refused to be read
    +-- GpuUnavailable     an NVIDIA driver that is there, or was, cannot be used (worker/collectors/gpu.py)

A collector may raise any other exception as well (an ``OSError`` from a file under ``/proc``, say): whoever calls it
reports the failure and goes on. "This machine has none" is not a failure but an empty report.
"""

from typing import Protocol

from fleetpulse.proto import fleetpulse_pb2 as pb

MAX_ITEMS = 16
"""At most so many filesystems, disks or interfaces are reported, so that a heartbeat stays small on any machine."""


class CollectorError(Exception):
    """A collector could not give what it is for. The message is meant for an operator."""


class NothingReadable(CollectorError):
    """The machine has such things, but not one of them could be read."""


class Collector(Protocol):
    """Reads one kind of fact about this machine."""

    @property
    def name(self) -> str:
        """One word, unique among the collectors of a worker; a label value on the master's ``/metrics``."""
        ...

    def collect(self) -> pb.Heartbeat:
        """A new heartbeat that holds this collector's own fields only; a reading that could not be had is absent.

        Called from one thread at a time. May block for as long as the kernel or a driver makes it.
        """
        ...


def wire_text(name: str) -> str:
    """``name`` in valid UTF-8, which protobuf demands and the kernel, for paths and interfaces, does not."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
