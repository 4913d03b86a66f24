"""Main memory and swap of the whole machine; in a container those of the host, not the limit of its cgroup."""

from collections.abc import Callable
from typing import Protocol

import psutil

from fleetpulse.proto import fleetpulse_pb2 as pb


class MainMemory(Protocol):
    """Bytes, as ``psutil.virtual_memory()`` returns them."""

    @property
    def total(self) -> int: ...
    @property
    def available(self) -> int: ...


class Swap(Protocol):
    """Bytes, as ``psutil.swap_memory()`` returns them."""

    @property
    def total(self) -> int: ...
    @property
    def free(self) -> int: ...


class MemoryCollector:
    """``memory``. Used memory is what a new process cannot have without swapping: page cache counts as free."""

    name = "memory"

    def __init__(
        self,
        read_main: Callable[[], MainMemory] = psutil.virtual_memory,
        read_swap: Callable[[], Swap] = psutil.swap_memory,
    ) -> None:
        self._read_main = read_main
        self._read_swap = read_swap

    def collect(self) -> pb.Heartbeat:
        """The swap fields are absent on a machine without swap."""
        main, swap = self._read_main(), self._read_swap()
        # In an LXC container `available` can exceed `total`.
        memory = pb.Memory(used_bytes=max(0, main.total - main.available), size_bytes=main.total)
        if swap.total > 0:
            memory.swap_used_bytes = max(0, swap.total - swap.free)
            memory.swap_size_bytes = swap.total
        return pb.Heartbeat(memory=memory)
