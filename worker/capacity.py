"""What this machine has in all, for the registration with the master; in a container what the host has."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import psutil

from fleetpulse.proto import fleetpulse_pb2 as pb

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


def machine_memory_bytes() -> int:
    """Main memory, less what the firmware and the kernel keep from the start; limits of a cgroup do not count."""
    return psutil.virtual_memory().total


def machine_capacity(
    gpu_count: int | None = None,
    gpu_uuids: Sequence[str] = (),
    *,
    logical_cores: Callable[[], int | None] = psutil.cpu_count,
    memory_bytes: Callable[[], int] = machine_memory_bytes,
) -> pb.Capacity:
    """What cannot be found out is absent. Raises nothing: a worker registers whatever its machine hides.

    ``gpu_count`` is ``GpuCollector.device_count``, known after the first round of the collectors; no driver is called
    here, so this returns at once. A device without a uuid cannot be given to a task, and is left out.
    """
    return pb.Capacity(
        cpu_cores=_attempt(logical_cores),
        memory_bytes=_attempt(memory_bytes),
        gpu_count=gpu_count,
        gpu_uuids=[uuid for uuid in gpu_uuids if uuid],
    )


def _attempt(read: Callable[[], _T]) -> _T | None:
    try:
        return read()
    except OSError as exc:
        _log.warning("a part of the machine's capacity is unknown: %s", exc)
        return None
