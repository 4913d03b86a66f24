"""master.rpc.codec"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.master.rpc.codec import Unreadable, heartbeat_from, worker_message_from
from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import MAX_MESSAGE_BYTES
from tests.master.fleet import full_heartbeat


def test_what_was_written_is_read() -> None:
    message = pb.WorkerMessage(heartbeat=full_heartbeat())
    assert worker_message_from(message.SerializeToString()) == message
    assert heartbeat_from(full_heartbeat().SerializeToString()) == full_heartbeat()


def test_nothing_is_an_empty_message() -> None:
    assert worker_message_from(b"") == pb.WorkerMessage()
    assert heartbeat_from(b"") == pb.Heartbeat()


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05ab", b"GET / HTTP/1.1\r\n", b"\x0a\x02\xff\xfe"])
def test_what_is_no_message_says_why(data: bytes) -> None:
    for read in (worker_message_from, heartbeat_from):
        result = read(data)
        assert isinstance(result, Unreadable)
        assert "is not a" in result.why


def test_a_message_at_the_limit_is_read_and_one_above_it_is_not() -> None:
    most = pb.Heartbeat(worker_id="a" * (MAX_MESSAGE_BYTES - 4)).SerializeToString()
    assert len(most) == MAX_MESSAGE_BYTES
    assert isinstance(heartbeat_from(most), pb.Heartbeat)
    for data in (most + b"\x18\x01", bytes(10 * 1024 * 1024)):
        result = heartbeat_from(data)
        assert isinstance(result, Unreadable)
        assert result.why == f"the message has {len(data)} bytes; at most {MAX_MESSAGE_BYTES} are accepted"


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_with_a_reason(data: bytes) -> None:
    assert isinstance(heartbeat_from(data), pb.Heartbeat | Unreadable)
    assert isinstance(worker_message_from(data), pb.WorkerMessage | Unreadable)
