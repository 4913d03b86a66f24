"""The plan of submits and faults, drawn from a seed. Pure; the same seed gives the same plan."""

import random
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import count
from typing import NamedTuple

from tests.chaos.jobs import Job, wide

HEARTBEAT_SECONDS = 0.5
TIMEOUT_SECONDS = 3.0
WORKERS = 3
"""Few enough that the loss of one worker is never a mass loss."""


class Kind(StrEnum):
    """The kind of fault of a round."""

    MASTER = "master"
    """``kill -9`` of the master's web process."""

    WORKER = "worker"
    """``kill -9`` of a worker, and a restart."""

    BOTH = "both"

    CUT = "cut"
    """A worker's connection is cut or stalled for longer than the inactivity timeout, and healed."""


class Round(NamedTuple):
    """One round. Times in seconds."""

    number: int
    kind: Kind
    calm_seconds: float
    """Seconds before the fault."""

    victim: int
    """The index of the worker."""

    stalls: bool
    """The connection stays open but carries no bytes."""

    outage_seconds: float
    """Seconds until the worker or the connection is back."""

    gap: float
    """Seconds between the two kills of ``BOTH``; below 0: the worker first."""


class Submission(NamedTuple):
    """A task, and the pause before it is submitted."""

    pause_seconds: float
    job: Job


def rounds(seed: int, kinds: Sequence[Kind], number_of_rounds: int) -> list[Round]:
    """``number_of_rounds`` rounds of each kind, in random order."""
    rng = random.Random(f"rounds {seed} {' '.join(kinds)}")
    order = [kind for kind in kinds for _ in range(number_of_rounds)]
    rng.shuffle(order)
    return [_round(rng, number, kind) for number, kind in enumerate(order, start=1)]


def submissions(seed: int) -> Iterator[Submission]:
    """An endless stream of tasks."""
    rng = random.Random(f"jobs {seed}")
    for number in count(1):
        yield Submission(rng.uniform(0.4, 1.3), _job(rng, f"chaos-{seed}-{number}"))


def _round(rng: random.Random, number: int, kind: Kind) -> Round:
    # Draw every value for every kind, so that later rounds do not depend on this one.
    calm_seconds, victim, stalls = rng.uniform(1.0, 4.0), rng.randrange(WORKERS), rng.random() < 0.5
    share, gap = rng.random(), rng.uniform(-0.6, 0.6)
    # A killed worker is usually back in time, even on a busy machine.
    outage_seconds = TIMEOUT_SECONDS + 2 * HEARTBEAT_SECONDS + 1.5 * share if kind is Kind.CUT else 0.5 * share
    return Round(number, kind, calm_seconds, victim, stalls, outage_seconds, gap)


def _job(rng: random.Random, key: str) -> Job:
    job = rng.choices(_MAKERS, _WEIGHTS)[0](rng, key)
    if rng.random() < 0.15:
        job = job._replace(cancel_after_seconds=rng.uniform(0.0, 4.0))
    return job._replace(
        max_retries=rng.choice((0, 1, 1, 2)),
        stops_on_sigterm=rng.random() < 0.9,
        submits_twice=rng.random() < 0.2,
        gives_up=rng.random() < 0.1,
    )


def _short(rng: random.Random, key: str) -> Job:
    return Job(key, seconds=rng.uniform(0.0, 0.5))


def _steady(rng: random.Random, key: str) -> Job:
    seconds = rng.uniform(1.5, 6.0)
    return Job(key, beats=round(seconds * 2), lines=rng.randint(1, 3), seconds=seconds)


def _long(rng: random.Random, key: str) -> Job:
    """A job that is longer than every fault, so that it still runs when its worker is back."""
    seconds = rng.uniform(8.0, 14.0)
    return Job(key, beats=round(seconds), seconds=seconds)


def _failing(rng: random.Random, key: str) -> Job:
    return Job(key, beats=2, seconds=rng.uniform(0.1, 2.0), exit_code=rng.randint(1, 120))


def _talkative(rng: random.Random, key: str) -> Job:
    return Job(key, beats=3, lines=rng.randint(100, 500), width=rng.randint(20, 90), seconds=rng.uniform(0.5, 2.0))


def _wide(rng: random.Random, key: str) -> Job:
    return wide(Job(key, beats=2, lines=2, seconds=rng.uniform(0.2, 2.0)))


_MAKERS = (_short, _steady, _long, _failing, _talkative, _wide)
_WEIGHTS = (6, 12, 4, 6, 2, 2)
