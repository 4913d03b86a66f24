"""master.history.points: samples as points, points as bytes and back, and resampling."""

import math
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetpulse.master.history.fields import FIELDS, GAUGES, INDEX_BY_NAME, Sample
from fleetpulse.master.history.points import (
    COLUMNS,
    WIDTH,
    Bucket,
    JournalPoint,
    Point,
    Points,
    Window,
    decode_chunk,
    decode_journal,
    encode_chunk,
    encode_journal,
    merge,
    pack,
    resample,
    unpack,
)
from fleetpulse.master.history.service import align
from tests.master.history.builders import NOW, point, points, sample, values_of

CPU = INDEX_BY_NAME["cpu_usage"]
READ = INDEX_BY_NAME["disk_read_bytes_per_second"]

VALUES = st.none() | st.floats(min_value=0.0, max_value=1e15)
SAMPLES = st.lists(st.tuples(st.tuples(*[VALUES] * WIDTH), st.floats(min_value=0.25, max_value=60.0)), max_size=40)


def bucket_of(samples: list[tuple[Sample, float]]) -> Point:
    bucket = Bucket(0)
    for values, seconds in samples:
        bucket.add(values, seconds)
    return bucket.point()


@settings(deadline=None, max_examples=40)
@given(SAMPLES)
def test_point_is_mean_minimum_and_maximum_of_the_samples(samples: list[tuple[Sample, float]]) -> None:
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
def test_longer_bucket_aggregates_shorter_points(samples: list[tuple[Sample, float]]) -> None:
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


def test_mean_of_a_rate_is_weighted_by_time() -> None:
    bucket = Bucket(0)
    bucket.add(sample(disk_read_bytes_per_second=100.0), 1.0)
    bucket.add(sample(disk_read_bytes_per_second=10.0), 9.0)
    assert bucket.point()[READ] == pytest.approx(19.0)


def test_bucket_of_a_worker_that_floods_stays_small() -> None:
    """A worker that beats far too often costs no more memory than others."""
    bucket = Bucket(0)
    for number in range(5_000):
        bucket.add(sample(cpu_usage=float(number)), 1.0)
        assert len(bucket._packed) < 16
    assert (bucket.point()[CPU], bucket.point()[WIDTH + CPU], bucket.point()[2 * WIDTH + CPU]) == (2499.5, 0.0, 4999.0)


def test_missing_reading_is_not_zero() -> None:
    assert all(math.isnan(value) for value in Bucket(0).point())
    assert point(cpu_usage=0.0)[CPU] == 0.0


@pytest.mark.parametrize("value", [1e300, -1e300])
def test_reading_beyond_the_stored_range_is_clamped(value: float) -> None:
    assert abs(unpack(pack(point(load1=value)))[INDEX_BY_NAME["load1"]]) == pytest.approx(3e38)


def test_field_names_are_unique() -> None:
    names: Any = [field.name for field in FIELDS]
    assert len(set(names)) == len(names) == WIDTH


VALUES = st.floats(min_value=2.0**-90, max_value=2.0**90, width=32) | st.just(0.0) | st.just(math.nan)
POINT = st.tuples(*[VALUES] * COLUMNS)
OFFSETS = st.lists(st.integers(min_value=1, max_value=900), min_size=1, max_size=12)


@settings(deadline=None, max_examples=20)
@given(st.data(), OFFSETS, st.sampled_from([15, 300]))
def test_chunk_keeps_times_gaps_and_five_digits(data: st.DataObject, offsets: list[int], step: int) -> None:
    start, whole = NOW, Points([], bytearray())
    for offset in offsets:
        start += offset * step
        whole.append(start, pack(data.draw(POINT)))
    found = decode_chunk(encode_chunk(whole, step))
    assert list(found.times) == list(whole.times)
    for column in range(COLUMNS):
        assert found.column(column) == pytest.approx(whole.column(column), rel=1 / 30_000, abs=0.0, nan_ok=True)


@pytest.mark.parametrize("value", [0.0, 1.0, 31.5, 100.0, 32768.0, 2.0**40])
def test_round_numbers_are_stored_exactly(value: float) -> None:
    found = decode_chunk(encode_chunk(points((NOW, value)), 15))
    assert values_of(bytes(found.data), "cpu_usage") == [value]
    assert values_of(bytes(found.data), "load1") == [None]


def test_similar_points_compress_well() -> None:
    steady = points(*[(NOW + 15 * number, 40.0) for number in range(60)])
    assert len(encode_chunk(steady, 15)) < 250


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 40, encode_chunk(points((NOW, 1.0)), 15)[:-3], b"\2" + encode_chunk(points((NOW, 1.0)), 15)[1:]],
    ids=["nothing", "zeros", "cut", "another version"],
)
def test_invalid_chunk_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="chunk of history"):
        decode_chunk(data)


def test_journal_is_decoded_in_order() -> None:
    written = [
        JournalPoint("rack-7", NOW, pack(point(cpu_usage=1.0))),
        JournalPoint("a" * 128, NOW + 15, pack(point(load1=2.0))),
        JournalPoint("rack-7", NOW + 15, pack(point())),
    ]
    assert list(decode_journal(encode_journal(written))) == written


def test_two_halves_of_a_bucket_merge_into_one_point() -> None:
    whole = unpack(merge(pack(point(cpu_usage=10.0, load1=3.0)), pack(point(cpu_usage=20.0))))
    assert (whole[0], whole[WIDTH], whole[2 * WIDTH]) == (15.0, 10.0, 20.0)
    assert struct.unpack("<f", struct.pack("<f", whole[5])) == (3.0,)


TIMES = st.lists(st.integers(min_value=0, max_value=300), max_size=80, unique=True)


def test_resampled_points_keep_their_times_and_gaps() -> None:
    (series,) = resample(Window(NOW, NOW + 75, 15), [points((NOW - 15, 1.0), (NOW, 2.0), (NOW + 60, 3.0))], [0])
    assert series.mean == [2.0, None, None, None, 3.0]
    assert series.low == series.high == series.mean


def test_missing_field_is_all_gaps() -> None:
    (series,) = resample(Window(NOW, NOW + 30, 15), [points((NOW, 2.0))], [3])
    assert series.mean == series.low == series.high == [None, None]


@settings(deadline=None, max_examples=60)
@given(TIMES, st.sampled_from([15, 30, 60, 300]), st.integers(min_value=0, max_value=20))
def test_longer_steps_aggregate_mean_minimum_and_maximum(indexes: list[int], step: int, start: int) -> None:
    window = align(NOW + 15 * start, NOW + 15 * 300, step)
    timed = [(NOW + 15 * index, float(index % 50)) for index in indexes]
    (series,) = resample(window, [points(one) for one in timed], [0])
    assert len(series.mean) == len(series.low) == len(series.high) == window.length
    for place in range(window.length):
        begin = window.start + place * step
        inside = [value for time, value in timed if begin <= time < begin + step]
        if inside:
            assert series.mean[place] == pytest.approx(math.fsum(inside) / len(inside), rel=1e-4)
            assert (series.low[place], series.high[place]) == (min(inside), max(inside))
        else:
            assert series.mean[place] is series.low[place] is series.high[place] is None


def test_point_that_is_stored_and_in_memory_counts_once() -> None:
    twice = points((NOW, 2.0), (NOW + 15, 4.0))
    (series,) = resample(Window(NOW, NOW + 30, 15), [twice, twice], [0])
    assert series.mean == [2.0, 4.0]
