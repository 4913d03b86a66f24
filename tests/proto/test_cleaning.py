"""proto.cleaning"""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.cleaning import clean, clean_name, clean_text, make, original_name
from fleetpulse.proto.fields import MAX_DEVICES, MAX_TEXT_LENGTH, NAME, TEXT

ANY_CHARACTER = st.characters(codec=None) | st.sampled_from("\\xuU0aé\x00\xa0\udce9\u200b")
NAMES = st.text(ANY_CHARACTER, max_size=40)


@given(st.text(ANY_CHARACTER, max_size=600))
def test_any_text_fits_afterwards(text: str) -> None:
    assert TEXT.fits(clean_text(text))
    assert NAME.fits(clean_name(text))


@given(NAMES)
def test_escaped_name_can_be_read_back(name: str) -> None:
    assert original_name(clean_name(name)) == name


@given(NAMES, NAMES)
def test_two_names_stay_two(one: str, other: str) -> None:
    assert (clean_name(one) == clean_name(other)) == (one == other)


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("/mnt/cass\udce9", r"/mnt/cass\xe9"),
        ("/mnt/a\xa0b", r"/mnt/a\u00a0b"),
        ("/mnt/a\tb", r"/mnt/a\x09b"),
        (r"/mnt/a\b", r"/mnt/a\b"),
        (r"/mnt/a\x20b", r"/mnt/a\x5cx20b"),
        ("/mnt/名前", "/mnt/名前"),
    ],
)
def test_name_is_escaped(raw: str, cleaned: str) -> None:
    assert clean_name(raw) == cleaned


def test_long_text_is_cut_with_a_mark() -> None:
    assert clean_text("x" * 300) == "x" * (MAX_TEXT_LENGTH - 1) + "…"


def test_long_names_that_differ_at_their_ends_stay_two() -> None:
    one, other = clean_name("/" + "x" * 300 + "1"), clean_name("/" + "x" * 300 + "2")
    assert one != other
    assert one[:200] == other[:200]


def test_no_escape_is_cut_in_two() -> None:
    assert clean_text("\udce9" * 100) == r"\xe9" * 63 + "…"


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -1, 2**64])
def test_number_against_its_rule_is_absent(value: float | None) -> None:
    assert not make(pb.Filesystem, mountpoint="/", used_bytes=value).HasField("used_bytes")


def test_number_of_32_bits_ends_by_its_type() -> None:
    assert not make(pb.Cpu, logical_cores=2**32).HasField("logical_cores")
    assert make(pb.Cpu, logical_cores=2**32 - 1).logical_cores == 2**32 - 1


def test_second_of_two_equal_names_is_numbered() -> None:
    heartbeat = pb.Heartbeat(filesystems=[pb.Filesystem(mountpoint=name) for name in ("/a", "/a", "/a#2")])
    assert clean(heartbeat)
    assert [filesystem.mountpoint for filesystem in heartbeat.filesystems] == ["/a", "/a#3", "/a#2"]


def test_second_of_two_equal_gpus_is_left_out() -> None:
    heartbeat = pb.Heartbeat(gpus=[pb.Gpu(uuid=uuid) for uuid in ("one", "two", "one")])
    assert clean(heartbeat)
    assert [gpu.uuid for gpu in heartbeat.gpus] == ["one", "two"]


def test_list_is_cut_and_the_rest_counted() -> None:
    heartbeat = pb.Heartbeat(disk_devices=[pb.DiskDevice(device=f"sd{number}") for number in range(10_000)])
    assert clean(heartbeat) == [f"disk_devices: {10_000 - MAX_DEVICES} of 10000 left out"]
    assert len(heartbeat.disk_devices) == MAX_DEVICES


def test_message_that_fits_is_left_as_it_is() -> None:
    heartbeat = pb.Heartbeat(filesystems=[pb.Filesystem(mountpoint=r"/mnt/cass\xe9", used_bytes=1)])
    before = heartbeat.SerializeToString()
    assert clean(heartbeat) == []
    assert heartbeat.SerializeToString() == before
