"""master.telemetry.demand"""

import pytest

from fleetpulse.master.telemetry.demand import DEMAND_SECONDS, LEAD_SECONDS, Demand


def read_at(*times: float) -> Demand:
    demand = Demand()
    for time in times:
        demand.note_read(time)
    return demand


def test_what_nobody_reads_is_not_in_demand() -> None:
    demand = Demand()
    assert not demand.exists(0.0)
    assert demand.quiet_seconds(0.0) == 0.0


def test_a_read_keeps_a_view_in_demand_for_a_while() -> None:
    demand = read_at(100.0)
    assert demand.exists(100.0)
    assert demand.exists(99.75 + DEMAND_SECONDS)
    assert not demand.exists(100.0 + DEMAND_SECONDS)


def test_one_read_is_no_rhythm() -> None:
    assert read_at(100.0).quiet_seconds(100.0) == 0.0


def test_nobody_is_expected_until_shortly_before_the_same_time_has_passed_again() -> None:
    demand = read_at(100.0, 115.0)
    assert demand.quiet_seconds(115.0) == 15.0 - LEAD_SECONDS
    assert demand.quiet_seconds(120.0) == 10.0 - LEAD_SECONDS
    assert demand.quiet_seconds(130.0 - LEAD_SECONDS) == 0.0
    assert demand.quiet_seconds(140.0) == 0.0


@pytest.mark.parametrize("pause", [0.1, LEAD_SECONDS])
def test_who_reads_all_the_time_is_always_expected(pause: float) -> None:
    assert read_at(100.0, 100.0 + pause).quiet_seconds(100.0 + pause) == 0.0


def test_of_several_readers_the_next_may_come_after_the_shortest_pause() -> None:
    demand = read_at(100.0, 104.0, 115.0, 119.0, 130.0)
    assert demand.quiet_seconds(130.0) == 4.0 - LEAD_SECONDS


def test_a_rhythm_that_ended_is_forgotten() -> None:
    demand = read_at(100.0, 101.5, 116.5, 131.5, 146.5, 161.5)
    assert demand.quiet_seconds(161.5) == 15.0 - LEAD_SECONDS


def test_a_rhythm_does_not_outlive_the_demand() -> None:
    demand = read_at(100.0, 115.0)
    assert demand.quiet_seconds(115.0 + DEMAND_SECONDS) == 0.0
    demand.note_read(115.0 + DEMAND_SECONDS)
    assert demand.quiet_seconds(115.0 + DEMAND_SECONDS) == 0.0
