"""Main memory and swap: of the machine, or of the container that the worker runs in, if that has less.

* Used is what a new process cannot have without swapping: the page cache counts as free. So does the cache of ZFS down
  to its least size (``size`` less ``c_min`` of ``arcstats``), as in htop: Linux counts that cache as used.
* A worker in a container with a limit reads the container's cgroup: its limit, and its use without ``inactive_file``,
  which the kernel gives back first (the working set of Kubernetes). A worker in the machine's process namespace is
  there for the machine, whatever limit it has itself.
* In LXC, lxcfs shows the container's numbers in ``/proc/meminfo`` itself. ZFS's cache is then the host's.
"""

import contextlib
from pathlib import Path
from typing import NamedTuple

import psutil

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors import PROC, SYS, CollectorError, read_number, read_text

_INITIAL_PID_NAMESPACE = "pid:[4026531836]"
"""The kernel numbers the first namespaces the same everywhere (PROC_PID_INIT_INO of linux/proc_ns.h)."""


class MemoryUnreadable(CollectorError):
    """``/proc/meminfo`` has no size of the memory."""


class MemoryCounters(NamedTuple):
    """Bytes."""

    total: int
    available: int
    swap_total: int
    swap_free: int


def parse_meminfo(text: str) -> dict[str, int]:
    """Bytes by name. Lines without a number of kB are skipped."""
    values = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        number, _, unit = value.strip().partition(" ")
        if unit == "kB" and number.isdecimal():
            values[name] = int(number) * 1024
    return values


def parse_counters(text: str) -> dict[str, int]:
    """Numbers by name, where the last word of a line is its number: ``memory.stat``, ``arcstats``."""
    lines = [line.split() for line in text.splitlines()]
    return {words[0]: int(words[-1]) for words in lines if len(words) > 1 and words[-1].isdecimal()}


def read_memory(proc: Path, sys: Path) -> MemoryCounters:
    """Raises ``OSError``, ``MemoryUnreadable``."""
    if proc == PROC and not psutil.LINUX:
        main, swap = psutil.virtual_memory(), psutil.swap_memory()
        return MemoryCounters(main.total, main.available, swap.total, swap.free)
    meminfo = parse_meminfo(read_text(proc / "meminfo"))
    if not meminfo.get("MemTotal"):
        raise MemoryUnreadable(f"{proc}/meminfo has no MemTotal")
    machine = _of_meminfo(meminfo)
    if _is_for_machine(proc):
        return machine._replace(available=machine.available + _zfs_cache(proc))
    return _within_cgroup(machine, sys / "fs" / "cgroup")


def _of_meminfo(meminfo: dict[str, int]) -> MemoryCounters:
    # Without MemAvailable (Linux before 3.14, some sandboxes): what the kernel can drop, less what it cannot of it.
    dropped = sum(meminfo.get(name, 0) for name in ("MemFree", "Buffers", "Cached", "SReclaimable"))
    available = meminfo.get("MemAvailable", max(0, dropped - meminfo.get("Shmem", 0)))
    return MemoryCounters(meminfo["MemTotal"], available, meminfo.get("SwapTotal", 0), meminfo.get("SwapFree", 0))


def _is_for_machine(proc: Path) -> bool:
    try:
        return (proc / "self" / "ns" / "pid").readlink().name == _INITIAL_PID_NAMESPACE
    except OSError:
        return False


def _zfs_cache(proc: Path) -> int:
    """Bytes that ZFS would give back."""
    try:
        stats = parse_counters(read_text(proc / "spl" / "kstat" / "zfs" / "arcstats"))
    except OSError:
        return 0
    return max(0, stats.get("size", 0) - stats.get("c_min", 0))


def _within_cgroup(machine: MemoryCounters, cgroup: Path) -> MemoryCounters:
    """The numbers of the cgroup that is the root in this container, if its limit is below the machine's memory."""
    version1 = cgroup / "memory"
    if (cgroup / "memory.max").exists():
        limit, used = read_number(cgroup / "memory.max"), read_number(cgroup / "memory.current")
        stat, cache = cgroup / "memory.stat", "inactive_file"
        swap_limit, swap_used = read_number(cgroup / "memory.swap.max"), read_number(cgroup / "memory.swap.current")
    else:
        limit, used = read_number(version1 / "memory.limit_in_bytes"), read_number(version1 / "memory.usage_in_bytes")
        stat, cache = version1 / "memory.stat", "total_inactive_file"
        # Version 1 counts memory and swap together.
        swap_limit = _difference(read_number(version1 / "memory.memsw.limit_in_bytes"), limit)
        swap_used = _difference(read_number(version1 / "memory.memsw.usage_in_bytes"), used)
    if limit is None or used is None or not 0 < limit < machine.total:
        return machine
    with contextlib.suppress(OSError):  # then the cache counts as used
        used -= parse_counters(read_text(stat)).get(cache, 0)
    swap_total, swap_free = machine.swap_total, machine.swap_free
    if swap_limit is not None and swap_used is not None:
        swap_total = min(swap_limit, machine.swap_total)
        swap_free = swap_total - min(swap_used, swap_total)
    return MemoryCounters(limit, limit - max(0, min(used, limit)), swap_total, swap_free)


def _difference(both: int | None, one: int | None) -> int | None:
    return None if both is None or one is None else max(0, both - one)


class MemoryCollector:
    """``memory``. Used memory is what a new process cannot have without swapping: page cache counts as free."""

    name = "memory"

    def __init__(self, proc: Path = PROC, sys: Path = SYS) -> None:
        self._proc, self._sys = proc, sys

    def collect(self) -> pb.Heartbeat:
        """The swap fields are absent on a machine without swap. Raises ``OSError``, ``MemoryUnreadable``."""
        now = read_memory(self._proc, self._sys)
        # In an LXC container `available` can exceed `total`.
        memory = pb.Memory(used_bytes=max(0, now.total - now.available), size_bytes=now.total)
        if now.swap_total > 0:
            memory.swap_used_bytes = max(0, now.swap_total - now.swap_free)
            memory.swap_size_bytes = now.swap_total
        return pb.Heartbeat(memory=memory)
