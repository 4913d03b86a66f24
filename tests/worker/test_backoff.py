"""worker.backoff"""

import random

from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.worker.backoff import Backoff


class NoJitter(random.Random):
    """Chance that always gives the longest delay."""

    def uniform(self, a: float, b: float) -> float:
        return b


def test_delays_grow_by_the_factor_up_to_the_cap() -> None:
    backoff = Backoff(initial_seconds=1.0, factor=2.0, cap_seconds=5.0, rng=NoJitter())
    assert [backoff.next_delay_seconds() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_a_reset_starts_over() -> None:
    backoff = Backoff(initial_seconds=1.0, factor=2.0, cap_seconds=5.0, rng=NoJitter())
    for _ in range(4):
        backoff.next_delay_seconds()
    backoff.reset()
    assert [backoff.next_delay_seconds() for _ in range(2)] == [1.0, 2.0]


def test_a_limit_below_the_cap_holds_until_there_is_another() -> None:
    backoff = Backoff(initial_seconds=1.0, factor=2.0, cap_seconds=5.0, rng=NoJitter())
    backoff.limit(3.0)
    assert [backoff.next_delay_seconds() for _ in range(4)] == [1.0, 2.0, 3.0, 3.0]
    backoff.limit(60.0)
    assert [backoff.next_delay_seconds() for _ in range(2)] == [5.0, 5.0]
    backoff.limit(0.0)
    assert backoff.next_delay_seconds() == 1.0


@given(st.integers())
def test_chance_shortens_each_delay_by_half_at_most(seed: int) -> None:
    longest, shortened = Backoff(rng=NoJitter()), Backoff(rng=random.Random(seed))
    for _ in range(20):
        delay = longest.next_delay_seconds()
        assert 0.5 * delay <= shortened.next_delay_seconds() <= delay


def test_a_fleet_does_not_come_back_at_one_moment() -> None:
    firsts = {Backoff(rng=random.Random(seed)).next_delay_seconds() for seed in range(100)}
    assert len(firsts) == 100
    assert max(firsts) - min(firsts) > 0.1


def test_a_fleet_whose_master_restarts_in_two_seconds_is_back_in_five() -> None:
    """Tries that fail at once, as they do while nobody listens, are never further apart than three seconds by then."""
    backoff = Backoff(rng=NoJitter())
    elapsed = 0.0
    while elapsed < 2.0:
        elapsed += backoff.next_delay_seconds()
    assert elapsed < 5.0


def test_the_defaults_never_wait_longer_than_15_seconds() -> None:
    backoff = Backoff()
    assert max(backoff.next_delay_seconds() for _ in range(200)) <= 15.0
