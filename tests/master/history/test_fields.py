"""master.history.fields: samples, and rates of counters that are reset, appear and vanish."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetpulse.master.history.fields import RATES, SampleReader
from fleetpulse.master.telemetry.readings import DiskDevice
from fleetpulse.master.telemetry.records import WorkerTelemetry
from tests.master.history.builders import NOW, disk, network, telemetry

COUNTS = st.lists(st.integers(min_value=0, max_value=2**63), min_size=1, max_size=20)


class Rates:
    """The rates of one worker's updates."""

    def __init__(self) -> None:
        self._sampler = SampleReader(30.0)
        self.seconds = 0.0

    def after(self, update: WorkerTelemetry) -> tuple[float | None, ...]:
        sample, self.seconds = self._sampler.sample(update)
        return sample[-len(RATES) :]


NONE = (None, None, None, None)


def test_first_update_has_no_rates() -> None:
    rates = Rates()
    assert rates.after(telemetry(NOW, **disk(1000))) == NONE
    assert rates.seconds == 0.0


def test_rate_is_the_increase_since_the_last_update() -> None:
    rates = Rates()
    rates.after(telemetry(NOW, **disk(1000, 50), **network(7, None)))
    assert rates.after(telemetry(NOW + 5, **disk(1500, 50), **network(10, 3))) == (100.0, 0.0, 0.6, None)
    assert rates.seconds == 5.0


@settings(deadline=None, max_examples=100)
@given(COUNTS, st.integers(min_value=0))
def test_rates_add_up_to_what_was_counted_also_across_resets(steps: list[int], first: int) -> None:
    """A counter that is reset falls to what was counted since."""
    rates = Rates()
    rates.after(telemetry(NOW, **disk(first)))
    before, expected, total = first, 0, 0.0
    for number, count in enumerate(steps, start=1):
        expected += count - before if count >= before else count
        read, *_ = rates.after(telemetry(NOW + 5 * number, **disk(count)))
        assert read is not None
        assert read >= 0.0
        total += read * rates.seconds
        before = count
    assert total == pytest.approx(expected)


def test_new_device_counts_from_its_second_update() -> None:
    rates = Rates()
    rates.after(telemetry(NOW, **disk(1000)))
    both = (DiskDevice("sda", 1005, None), DiskDevice("sdb", 9_000_000, None))
    assert rates.after(telemetry(NOW + 5, disk_devices=both))[0] == 1.0
    assert rates.after(telemetry(NOW + 10, disk_devices=both[1:]))[0] == 0.0


def test_worker_without_devices_has_no_rates() -> None:
    rates = Rates()
    rates.after(telemetry(NOW))
    assert rates.after(telemetry(NOW + 5)) == NONE


@pytest.mark.parametrize("later", [31.0, 0.0, -5.0])
def test_no_rate_across_a_long_silence_or_a_clock_set_back(later: float) -> None:
    rates = Rates()
    rates.after(telemetry(NOW, **disk(1000)))
    assert rates.after(telemetry(NOW + later, **disk(2000))) == NONE
    assert rates.after(telemetry(NOW + later + 5, **disk(2005)))[0] == 1.0
