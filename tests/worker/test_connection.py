"""worker.connection"""

import random

from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.worker.connection import Backoff


class NoJitter(random.Random):
    """Always gives the longest delay."""

    def uniform(self, a: float, b: float) -> float:
        return b


def test_delays_grow_by_the_factor_up_to_the_cap() -> None:
    backoff = Backoff(initial_seconds=1.0, factor=2.0, cap_seconds=5.0, rng=NoJitter())
    assert [backoff.next_delay_seconds() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_reset_starts_over_with_the_first_delay() -> None:
    backoff = Backoff(initial_seconds=1.0, factor=2.0, cap_seconds=5.0, rng=NoJitter())
    for _ in range(4):
        backoff.next_delay_seconds()
    backoff.reset()
    assert [backoff.next_delay_seconds() for _ in range(2)] == [1.0, 2.0]


def test_limit_below_the_cap_holds_until_the_next_limit() -> None:
    backoff = Backoff(initial_seconds=1.0, factor=2.0, cap_seconds=5.0, rng=NoJitter())
    backoff.limit(3.0)
    assert [backoff.next_delay_seconds() for _ in range(4)] == [1.0, 2.0, 3.0, 3.0]
    backoff.limit(60.0)
    assert [backoff.next_delay_seconds() for _ in range(2)] == [5.0, 5.0]
    backoff.limit(0.0)
    assert backoff.next_delay_seconds() == 1.0


@given(st.integers())
def test_jitter_shortens_each_delay_by_at_most_half(seed: int) -> None:
    longest, shortened = Backoff(rng=NoJitter()), Backoff(rng=random.Random(seed))
    for _ in range(20):
        delay = longest.next_delay_seconds()
        assert 0.5 * delay <= shortened.next_delay_seconds() <= delay


def test_jitter_spreads_the_first_delays_of_a_fleet() -> None:
    firsts = {Backoff(rng=random.Random(seed)).next_delay_seconds() for seed in range(100)}
    assert len(firsts) == 100
    assert max(firsts) - min(firsts) > 0.1


def test_fleet_is_back_five_seconds_after_a_restart_of_two_seconds() -> None:
    """Tries that fail at once, as they do while nobody listens, are never further apart than three seconds by then."""
    backoff = Backoff(rng=NoJitter())
    elapsed = 0.0
    while elapsed < 2.0:
        elapsed += backoff.next_delay_seconds()
    assert elapsed < 5.0


def test_default_delays_are_at_most_15_seconds() -> None:
    backoff = Backoff()
    assert max(backoff.next_delay_seconds() for _ in range(200)) <= 15.0
