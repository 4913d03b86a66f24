"""Points as bytes and back."""

import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetpulse.master.history.bucket import WIDTH
from fleetpulse.master.history.points import (
    COLUMNS,
    JournalPoint,
    Points,
    combined,
    decode_chunk,
    decode_journal,
    encode_chunk,
    encode_journal,
    pack,
    unpack,
)
from tests.master.history.given import NOW, point, points, values_of

VALUES = st.floats(min_value=2.0**-90, max_value=2.0**90, width=32) | st.just(0.0) | st.just(math.nan)
POINT = st.tuples(*[VALUES] * COLUMNS)
OFFSETS = st.lists(st.integers(min_value=1, max_value=900), min_size=1, max_size=12)


@settings(deadline=None, max_examples=20)
@given(st.data(), OFFSETS, st.sampled_from([15, 300]))
def test_a_chunk_keeps_times_gaps_and_five_digits(data: st.DataObject, offsets: list[int], step: int) -> None:
    start, whole = NOW, Points([], bytearray())
    for offset in offsets:
        start += offset * step
        whole.append(start, pack(data.draw(POINT)))
    found = decode_chunk(encode_chunk(whole, step))
    assert list(found.times) == list(whole.times)
    for column in range(COLUMNS):
        assert found.column(column) == pytest.approx(whole.column(column), rel=1 / 30_000, abs=0.0, nan_ok=True)


@pytest.mark.parametrize("value", [0.0, 1.0, 31.5, 100.0, 32768.0, 2.0**40])
def test_round_numbers_come_back_as_they_were(value: float) -> None:
    found = decode_chunk(encode_chunk(points((NOW, value)), 15))
    assert values_of(bytes(found.data), "cpu_usage") == [value]
    assert values_of(bytes(found.data), "load1") == [None]


def test_what_is_alike_takes_little_room() -> None:
    steady = points(*[(NOW + 15 * number, 40.0) for number in range(60)])
    assert len(encode_chunk(steady, 15)) < 250


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 40, encode_chunk(points((NOW, 1.0)), 15)[:-3], b"\2" + encode_chunk(points((NOW, 1.0)), 15)[1:]],
    ids=["nothing", "zeros", "cut", "another version"],
)
def test_what_is_no_chunk_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="chunk of history"):
        decode_chunk(data)


def test_a_journal_comes_back_in_order() -> None:
    written = [
        JournalPoint("rack-7", NOW, pack(point(cpu_usage=1.0))),
        JournalPoint("a" * 128, NOW + 15, pack(point(load1=2.0))),
        JournalPoint("rack-7", NOW + 15, pack(point())),
    ]
    assert list(decode_journal(encode_journal(written))) == written


def test_two_halves_of_a_bucket_are_one_point() -> None:
    whole = unpack(combined(pack(point(cpu_usage=10.0, load1=3.0)), pack(point(cpu_usage=20.0))))
    assert (whole[0], whole[WIDTH], whole[2 * WIDTH]) == (15.0, 10.0, 20.0)
    assert struct.unpack("<f", struct.pack("<f", whole[5])) == (3.0,)
