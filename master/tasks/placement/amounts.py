"""Resources as whole numbers: sums and comparisons are exact, so ten times 0.1 cores fit into one.

CPU counts in microcores: the kernel's CPU quotas cannot tell apart less than ten of them, and the error of a sum of
floats is far below one.
"""

from functools import lru_cache
from math import ceil
from typing import NamedTuple

from fleetpulse.master.tasks.placement.records import Offer
from fleetpulse.master.tasks.records import Demand

_MICRO = 1_000_000


class Amounts(NamedTuple):
    """So much of each resource."""

    microcores: int
    memory_bytes: int
    gpus: int

    def fits_into(self, room: "Amounts") -> bool:
        return self.microcores <= room.microcores and self.memory_bytes <= room.memory_bytes and self.gpus <= room.gpus

    def missing_from(self, room: "Amounts") -> "Amounts":
        """What ``room`` lacks to hold this; nothing below 0."""
        return Amounts(
            max(self.microcores - room.microcores, 0),
            max(self.memory_bytes - room.memory_bytes, 0),
            max(self.gpus - room.gpus, 0),
        )

    def share_missing_from(self, room: "Amounts") -> float:
        """How much ``room`` lacks as one number: the missing shares of each resource, added up. 0 when it fits."""
        # Written out: it is asked of every worker for each reservation.
        lack = 0.0
        if self.microcores > room.microcores:
            lack += (self.microcores - room.microcores) / self.microcores
        if self.memory_bytes > room.memory_bytes:
            lack += (self.memory_bytes - room.memory_bytes) / self.memory_bytes
        if self.gpus > room.gpus:
            lack += (self.gpus - room.gpus) / self.gpus
        return lack


def demanded(demand: Demand) -> Amounts:
    """Rounded up, and at least a microcore: nothing is placed that asks for more than there is."""
    return Amounts(max(ceil(round(demand.cpu_cores * _MICRO, 3)), 1), demand.memory_bytes, demand.gpus)


def free(offer: Offer) -> Amounts:
    return _amounts(offer.free_cpu_cores, offer.free_memory_bytes, len(offer.free_gpu_uuids))


def total(offer: Offer) -> Amounts:
    return _amounts(offer.cpu_cores, offer.memory_bytes, len(offer.gpu_uuids))


@lru_cache(maxsize=16_384)
def _amounts(cpu_cores: float, memory_bytes: int, gpus: int) -> Amounts:
    # Asked of every worker in each round, and most have not changed since the last.
    return Amounts(round(cpu_cores * _MICRO), memory_bytes, gpus)
