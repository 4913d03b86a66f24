"""master.edge.requests: rates"""

from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.master.edge.requests import RateLimiter


def test_burst_then_rate() -> None:
    limiter = RateLimiter(10.0, 20.0)
    assert [limiter.allow("a", 100.0) for _ in range(25)] == [True] * 20 + [False] * 5
    assert not limiter.allow("a", 100.05)
    assert limiter.allow("a", 100.11)
    assert not limiter.allow("a", 100.11)
    assert [limiter.allow("a", 200.0) for _ in range(21)] == [True] * 20 + [False]


def test_clients_have_separate_buckets() -> None:
    limiter = RateLimiter(1.0, 1.0)
    assert limiter.allow("a", 0.0)
    assert not limiter.allow("a", 0.0)
    assert limiter.allow("b", 0.0)


def test_buckets_are_bounded() -> None:
    limiter = RateLimiter(1.0, 2.0, max_clients=10)
    for number in range(1000):
        assert limiter.allow(f"client-{number}", number / 1e6)
        assert len(limiter) <= 20


def test_buckets_of_absent_clients_are_forgotten() -> None:
    limiter = RateLimiter(10.0, 20.0)
    for number in range(100):
        limiter.allow(f"client-{number}", 0.0)
    for now in (10.0, 20.0):
        limiter.allow("another", now)
    assert len(limiter) == 1


@given(st.lists(st.floats(0.0, 0.5), max_size=200))
def test_rate_is_never_exceeded_and_a_slow_client_never_refused(pauses: list[float]) -> None:
    limiter = RateLimiter(10.0, 5.0)
    now, taken = 1000.0, 0
    for pause in pauses:
        now += pause
        taken += limiter.allow("eager", now)
        assert taken <= 5.0 + (now - 1000.0) * 10.0 + 1e-6
        if pause >= 0.1 + 1e-6:
            assert limiter.allow(f"patient-{pause}", now)
