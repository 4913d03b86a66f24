"""Main memory and swap of the whole machine; in a container those of the host, not the limit of its cgroup."""

from collections.abc import Callable
from typing import NamedTuple

import psutil

from fleetpulse.proto import fleetpulse_pb2 as pb


class MemoryCounters(NamedTuple):
    """Bytes."""

    total: int
    available: int
    swap_total: int
    swap_free: int


def read_memory() -> MemoryCounters:
    main, swap = psutil.virtual_memory(), psutil.swap_memory()
    return MemoryCounters(main.total, main.available, swap.total, swap.free)


class MemoryCollector:
    """``memory``. Used memory is what a new process cannot have without swapping: page cache counts as free."""

    name = "memory"

    def __init__(self, read: Callable[[], MemoryCounters] = read_memory) -> None:
        self._read = read

    def collect(self) -> pb.Heartbeat:
        """The swap fields are absent on a machine without swap."""
        now = self._read()
        # In an LXC container `available` can exceed `total`.
        memory = pb.Memory(used_bytes=max(0, now.total - now.available), size_bytes=now.total)
        if now.swap_total > 0:
            memory.swap_used_bytes = max(0, now.swap_total - now.swap_free)
            memory.swap_size_bytes = now.swap_total
        return pb.Heartbeat(memory=memory)
