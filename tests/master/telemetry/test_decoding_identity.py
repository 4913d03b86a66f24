"""master.telemetry.decoding: worker ids and registrations"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.master.errors import InvalidMessage, InvalidReading
from fleetpulse.master.telemetry.decoding import check_worker_id, decode_registration
from fleetpulse.master.telemetry.records import Registration, Resources
from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.fields import MAX_LABELS
from fleetpulse.proto.rules import WORKER_ID_MAX_LENGTH, WORKER_ID_RULE
from tests.master.fleet import GIB
from tests.master.hostile import ANY_TEXT, BAD_WORKER_IDS, NOT_NUMBERS, assert_safe_to_log

GOOD_WORKER_IDS = ["a", "7", "rack-7", "Rack_7.example.com", "0.0", "a" * WORKER_ID_MAX_LENGTH]


@pytest.mark.parametrize("worker_id", GOOD_WORKER_IDS)
def test_valid_worker_id_is_accepted(worker_id: str) -> None:
    check_worker_id(worker_id)
    decode_registration(pb.Register(worker_id=worker_id))


@pytest.mark.parametrize("worker_id", BAD_WORKER_IDS, ids=lambda worker_id: ascii(worker_id[:20]))
def test_invalid_worker_id_is_refused_with_a_printable_error(worker_id: str) -> None:
    for refuse in (lambda: check_worker_id(worker_id), lambda: decode_registration(pb.Register(worker_id=worker_id))):
        with pytest.raises(InvalidMessage) as caught:
            refuse()
        assert WORKER_ID_RULE in str(caught.value)
        assert_safe_to_log(str(caught.value))


def test_every_field_of_a_registration_is_decoded() -> None:
    registration = decode_registration(
        pb.Register(
            worker_id="rack-7",
            incarnation_id="first",
            hostname="rack-7.example.com",
            version="1.2.3",
            boot_time_unix_seconds=1_600_000_000.0,
            capacity=pb.Capacity(cpu_cores=32.0, memory_bytes=64 * GIB, gpu_count=0),
            labels={"zone": "eu-1", "example.com/team": 'the "A" team'},
        )
    )
    assert registration == Registration(
        "first", "rack-7.example.com", "1.2.3", 1_600_000_000.0, Resources(32.0, 64 * GIB, 0),
        {"zone": "eu-1", "example.com/team": 'the "A" team'},
    )  # fmt: skip


def test_missing_fields_of_a_registration_are_none() -> None:
    assert decode_registration(pb.Register(worker_id="rack-7")) == Registration()


def test_labels_of_a_registration_are_read_only() -> None:
    labels: Any = decode_registration(pb.Register(worker_id="a", labels={"zone": "eu-1"})).labels
    with pytest.raises(TypeError):
        labels["zone"] = "eu-2"


@pytest.mark.parametrize(
    ("register", "named"),
    [
        (pb.Register(incarnation_id="a" * 65), "incarnation_id"),
        (pb.Register(incarnation_id="a\n"), "incarnation_id"),
        (pb.Register(hostname="a\n"), "hostname"),
        (pb.Register(hostname="a" * 257), "hostname"),
        (pb.Register(version="a\x00"), "version"),
        (pb.Register(labels={"": "a"}), "label name"),
        (pb.Register(labels={"7": "a"}), "label name"),
        (pb.Register(labels={'a"': "a"}), "label name"),
        (pb.Register(labels={"a\n": "a"}), "label name"),
        (pb.Register(labels={"a" * 65: "a"}), "label name"),
        (pb.Register(labels={"zone": "a\n"}), "label value"),
        (pb.Register(labels={f"l{number}": "" for number in range(MAX_LABELS + 1)}), "labels"),
    ],
)
def test_invalid_registration_is_refused(register: pb.Register, named: str) -> None:
    register.worker_id = "rack-7"
    with pytest.raises(InvalidMessage, match=named) as caught:
        decode_registration(register)
    assert_safe_to_log(str(caught.value))


@pytest.mark.parametrize("value", [*NOT_NUMBERS, -1.0])
def test_number_of_a_registration_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(InvalidReading, match="boot_time_unix_seconds"):
        decode_registration(pb.Register(worker_id="a", boot_time_unix_seconds=value))
    with pytest.raises(InvalidReading, match=r"capacity\.cpu_cores"):
        decode_registration(pb.Register(worker_id="a", capacity=pb.Capacity(cpu_cores=value)))


@given(ANY_TEXT, st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=3))
def test_any_registration_is_decoded_or_refused_with_a_reason(worker_id: str, labels: dict[str, str]) -> None:
    try:
        decode_registration(pb.Register(worker_id=worker_id, labels=labels))
    except InvalidMessage as error:
        assert_safe_to_log(str(error))
