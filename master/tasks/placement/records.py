"""What the scheduler is given and what it gives back, as immutable snapshots."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from fleetpulse.master.tasks.records import Demand


class Offer(NamedTuple):
    """What one worker has in all, and what of that no live attempt holds."""

    worker_id: str
    labels: Mapping[str, str]
    cpu_cores: float
    memory_bytes: int
    gpu_uuids: tuple[str, ...]
    free_cpu_cores: float
    free_memory_bytes: int
    free_gpu_uuids: tuple[str, ...]
    refusal: str | None = None
    """Why it takes no tasks now, for people: it drains, is inactive, has no Docker. ``None`` when it takes some."""


class Waiting(NamedTuple):
    """A queued task that may be placed now. Constraints are as in ``TaskSpec``."""

    task_id: str
    demand: Demand
    constraints: Mapping[str, tuple[str, ...]]
    priority: int
    queued_at: float
    """In seconds, on the clock of the ``now`` that the scheduler is given."""


class Placement(NamedTuple):
    """A decision: the task runs on that worker, with those GPUs for itself."""

    task_id: str
    worker_id: str
    gpu_uuids: tuple[str, ...]


class Plan(NamedTuple):
    """What one round decided."""

    placements: list[Placement]
    reservations: dict[str, str]
    """By worker id, the task for which the worker is kept: nothing behind that task was placed there."""


Policy = Callable[[Sequence[Offer], Sequence[Waiting], float], Plan]
"""``(offers, waiting, now) -> Plan``: who goes where, of those that wait, by what every worker has left.

It is called in a native thread, one call at a time, with immutable snapshots: each worker once, those that take
nothing (``refusal``) among them, and each queued task that may be placed now; ``now`` is on the clock of ``queued_at``.
It waits for nothing and is done within a fraction of a second, for nothing is placed meanwhile.
What it leaves out waits for the next round, at most five seconds later. Each placement is checked when it is carried
out, so a wrong one costs a round, and never puts more on a worker than it has. An exception costs the round, too.
"""


def satisfies(offer: Offer, constraints: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether every label that is named has one of the values that are allowed."""
    return all(label_of(offer, label) in allowed for label, allowed in constraints.items())


def label_of(offer: Offer, label: str) -> str | None:
    """The worker's value of a label; its id under ``worker_id``, whatever it says of itself there."""
    return offer.worker_id if label == "worker_id" else offer.labels.get(label)
