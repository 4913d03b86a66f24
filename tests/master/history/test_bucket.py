"""Many samples as one point."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetpulse.master.history.bucket import WIDTH, Bucket, Point
from fleetpulse.master.history.fields import FIELDS, GAUGES, INDEX_BY_NAME, Sample
from fleetpulse.master.history.points import pack, unpack
from tests.master.history.given import point, sample

CPU = INDEX_BY_NAME["cpu_usage"]
READ = INDEX_BY_NAME["disk_read_bytes_per_second"]

VALUES = st.none() | st.floats(min_value=0.0, max_value=1e15)
SAMPLES = st.lists(st.tuples(st.tuples(*[VALUES] * WIDTH), st.floats(min_value=0.25, max_value=60.0)), max_size=8)


def bucket_of(samples: list[tuple[Sample, float]]) -> Point:
    bucket = Bucket(0)
    for values, seconds in samples:
        bucket.add(values, seconds)
    return bucket.point()


@settings(deadline=None, max_examples=40)
@given(SAMPLES)
def test_a_point_is_mean_minimum_and_maximum_of_what_there_was(samples: list[tuple[Sample, float]]) -> None:
    found = bucket_of(samples)
    for index in range(WIDTH):
        known = [(value, seconds) for values, seconds in samples if (value := values[index]) is not None]
        mean, low, high = found[index], found[WIDTH + index], found[2 * WIDTH + index]
        if not known:
            assert all(math.isnan(value) for value in (mean, low, high))
            continue
        weights = [1.0 if index < len(GAUGES) else seconds for _, seconds in known]
        total = math.fsum(value * weight for (value, _), weight in zip(known, weights, strict=True))
        assert mean == pytest.approx(total / math.fsum(weights))
        assert (low, high) == (min(value for value, _ in known), max(value for value, _ in known))
        assert low <= mean <= high


@settings(deadline=None, max_examples=40)
@given(SAMPLES)
def test_a_longer_bucket_holds_the_points_of_shorter_ones(samples: list[tuple[Sample, float]]) -> None:
    shorter = [bucket_of([one]) for one in samples]
    longer = Bucket(0)
    for one in shorter:
        longer.add_point(one)
    found = longer.point()
    for index in range(WIDTH):
        known = [one[index] for one in shorter if not math.isnan(one[index])]
        if known:
            assert found[index] == pytest.approx(sum(known) / len(known))
            assert (found[WIDTH + index], found[2 * WIDTH + index]) == (min(known), max(known))
        else:
            assert math.isnan(found[index])


def test_the_mean_of_a_rate_is_what_was_moved_in_the_whole_time() -> None:
    bucket = Bucket(0)
    bucket.add(sample(disk_read_bytes_per_second=100.0), 1.0)
    bucket.add(sample(disk_read_bytes_per_second=10.0), 9.0)
    assert bucket.point()[READ] == pytest.approx(19.0)


def test_nothing_is_never_zero() -> None:
    assert all(math.isnan(value) for value in Bucket(0).point())
    assert point(cpu_usage=0.0)[CPU] == 0.0


@pytest.mark.parametrize("value", [1e300, -1e300])
def test_a_reading_too_large_for_what_is_stored_becomes_the_largest_that_is(value: float) -> None:
    assert abs(unpack(pack(point(load1=value)))[INDEX_BY_NAME["load1"]]) == pytest.approx(3e38)


def test_every_field_has_one_name() -> None:
    names: Any = [field.name for field in FIELDS]
    assert len(set(names)) == len(names) == WIDTH
