"""Rates of counters that are reset, appear, and vanish."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetpulse.master.history.fields import Counters
from fleetpulse.master.telemetry.records import DiskDevice
from tests.master.history.given import NOW, disk, network, telemetry

COUNTS = st.lists(st.integers(min_value=0, max_value=2**63), min_size=1, max_size=20)


def test_the_first_update_tells_no_rate() -> None:
    assert Counters(30.0).advance(telemetry(NOW, **disk(1000))) is None


def test_what_was_added_since_the_last_update() -> None:
    counters = Counters(30.0)
    counters.advance(telemetry(NOW, **disk(1000, 50), **network(7, None)))
    increases = counters.advance(telemetry(NOW + 5, **disk(1500, 50), **network(10, 3)))
    assert increases is not None
    assert increases.seconds == 5.0
    assert increases.amounts == (500.0, 0.0, 3.0, None)


@settings(deadline=None, max_examples=100)
@given(COUNTS, st.integers(min_value=0))
def test_all_that_a_counter_counted_is_told_whatever_it_starts_with(steps: list[int], first: int) -> None:
    """A reset is a fall to what was counted since."""
    counters = Counters(30.0)
    counters.advance(telemetry(NOW, **disk(first)))
    before, expected, told = first, 0, 0.0
    for number, count in enumerate(steps, start=1):
        expected += count - before if count >= before else count
        increases = counters.advance(telemetry(NOW + 5 * number, **disk(count)))
        assert increases is not None
        assert increases.amounts[0] is not None
        assert increases.amounts[0] >= 0.0
        told += increases.amounts[0]
        before = count
    assert told == pytest.approx(expected)


def test_a_device_counts_from_its_second_update_on() -> None:
    counters = Counters(30.0)
    counters.advance(telemetry(NOW, **disk(1000)))
    both = (DiskDevice("sda", 1001, None), DiskDevice("sdb", 9_000_000, None))
    increases = counters.advance(telemetry(NOW + 5, disk_devices=both))
    assert increases is not None
    assert increases.amounts[0] == 1.0
    increases = counters.advance(telemetry(NOW + 10, disk_devices=both[1:]))
    assert increases is not None
    assert increases.amounts[0] == 0.0


def test_no_device_is_no_rate() -> None:
    counters = Counters(30.0)
    counters.advance(telemetry(NOW))
    increases = counters.advance(telemetry(NOW + 5))
    assert increases is not None
    assert increases.amounts == (None, None, None, None)


@pytest.mark.parametrize("later", [31.0, 0.0, -5.0])
def test_no_rate_is_told_over_a_long_silence_or_a_clock_set_back(later: float) -> None:
    counters = Counters(30.0)
    counters.advance(telemetry(NOW, **disk(1000)))
    assert counters.advance(telemetry(NOW + later, **disk(2000))) is None
    increases = counters.advance(telemetry(NOW + later + 5, **disk(2005)))
    assert increases is not None
    assert increases.amounts[0] == 5.0
