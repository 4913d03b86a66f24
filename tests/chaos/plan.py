"""What is submitted and what is broken, when: all of it drawn from the seed. Pure; the same seed is the same plan."""

import random
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import count
from typing import NamedTuple

from tests.chaos.jobs import Job, wide

HEARTBEAT_SECONDS = 0.5
TIMEOUT_SECONDS = 3.0
WORKERS = 3
"""A fleet so small that the loss of one is never taken for the loss of the network."""


class Kind(StrEnum):
    """What is broken in a round."""

    MASTER = "master"
    """``kill -9`` of the master's web process."""

    WORKER = "worker"
    """``kill -9`` of a worker, which is started again."""

    BOTH = "both"

    CUT = "cut"
    """A worker's connection is cut or stalled for longer than the inactivity timeout, and healed."""


class Round(NamedTuple):
    """One round. Times in seconds."""

    number: int
    kind: Kind
    calm: float
    """Before the fault."""

    victim: int
    """Which of the workers it is."""

    stalls: bool
    """The connection does not break, but carries nothing any more."""

    absence: float
    """Until the worker is started again, or the connection healed."""

    gap: float
    """Between the two kills of ``BOTH``; below 0: the worker first."""


class Submission(NamedTuple):
    """A task, and how long after the one before it is submitted."""

    pause_seconds: float
    job: Job


def rounds(seed: int, kinds: Sequence[Kind], number_of_rounds: int) -> list[Round]:
    """So many rounds of each kind, in an order that is drawn as well."""
    rng = random.Random(f"rounds {seed} {' '.join(kinds)}")
    order = [kind for kind in kinds for _ in range(number_of_rounds)]
    rng.shuffle(order)
    return [_round(rng, number, kind) for number, kind in enumerate(order, start=1)]


def submissions(seed: int) -> Iterator[Submission]:
    """Tasks without end."""
    rng = random.Random(f"jobs {seed}")
    for number in count(1):
        yield Submission(rng.uniform(0.4, 1.3), _job(rng, f"chaos-{seed}-{number}"))


def _round(rng: random.Random, number: int, kind: Kind) -> Round:
    # Every draw is made whatever the kind, so that the rounds that follow do not depend on it.
    calm, victim, stalls = rng.uniform(1.0, 4.0), rng.randrange(WORKERS), rng.random() < 0.5
    share, gap = rng.random(), rng.uniform(-0.6, 0.6)
    # A worker that is killed shall mostly be back in time, on a busy machine as well.
    absence = TIMEOUT_SECONDS + 2 * HEARTBEAT_SECONDS + 1.5 * share if kind is Kind.CUT else 0.5 * share
    return Round(number, kind, calm, victim, stalls, absence, gap)


def _job(rng: random.Random, key: str) -> Job:
    job = rng.choices(_MAKERS, _WEIGHTS)[0](rng, key)
    if rng.random() < 0.15:
        job = job._replace(cancel_after_seconds=rng.uniform(0.0, 4.0))
    return job._replace(
        max_retries=rng.choice((0, 1, 1, 2)),
        obedient=rng.random() < 0.9,
        asks_twice=rng.random() < 0.2,
        gives_up=rng.random() < 0.1,
    )


def _short(rng: random.Random, key: str) -> Job:
    return Job(key, seconds=rng.uniform(0.0, 0.5))


def _steady(rng: random.Random, key: str) -> Job:
    seconds = rng.uniform(1.5, 6.0)
    return Job(key, beats=round(seconds * 2), lines=rng.randint(1, 3), seconds=seconds)


def _long(rng: random.Random, key: str) -> Job:
    """Outlives every fault, so that it still runs when its worker is back."""
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
