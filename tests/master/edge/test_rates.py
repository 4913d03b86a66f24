"""master.edge.rates"""

from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.master.edge.rates import Buckets


def test_a_burst_and_then_the_rate() -> None:
    buckets = Buckets(10.0, 20.0)
    assert [buckets.take("a", 100.0) for _ in range(25)] == [True] * 20 + [False] * 5
    assert not buckets.take("a", 100.05)
    assert buckets.take("a", 100.11)
    assert not buckets.take("a", 100.11)
    assert [buckets.take("a", 200.0) for _ in range(21)] == [True] * 20 + [False]


def test_clients_are_told_apart() -> None:
    buckets = Buckets(1.0, 1.0)
    assert buckets.take("a", 0.0)
    assert not buckets.take("a", 0.0)
    assert buckets.take("b", 0.0)


def test_what_is_remembered_is_bounded() -> None:
    buckets = Buckets(1.0, 2.0, max_clients=10)
    for number in range(1000):
        assert buckets.take(f"client-{number}", number / 1e6)
        assert len(buckets) <= 20


def test_clients_that_are_away_are_forgotten() -> None:
    buckets = Buckets(10.0, 20.0)
    for number in range(100):
        buckets.take(f"client-{number}", 0.0)
    for now in (10.0, 20.0):
        buckets.take("another", now)
    assert len(buckets) == 1


@given(st.lists(st.floats(0.0, 0.5), max_size=200))
def test_never_more_than_the_burst_and_the_rate_and_a_patient_one_never_refused(pauses: list[float]) -> None:
    buckets = Buckets(10.0, 5.0)
    now, taken = 1000.0, 0
    for pause in pauses:
        now += pause
        taken += buckets.take("eager", now)
        assert taken <= 5.0 + (now - 1000.0) * 10.0 + 1e-6
        if pause >= 0.1 + 1e-6:
            assert buckets.take(f"patient-{pause}", now)
