"""Bytes to messages, so that what cannot be read gets the contract's answer.

Left to itself, grpc ends a call with INTERNAL when a message does not parse and lets nobody count it. These functions
never raise: a message that cannot be read becomes an ``Unreadable``, which the servicer refuses like any other.
"""

from typing import NamedTuple, TypeVar

from google.protobuf.message import DecodeError, Message

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import MAX_MESSAGE_BYTES


class Unreadable(NamedTuple):
    """A message that could not be read, and why."""

    why: str


M = TypeVar("M", bound=Message)


def worker_message_from(data: bytes) -> pb.WorkerMessage | Unreadable:
    return _read(pb.WorkerMessage, data)


def heartbeat_from(data: bytes) -> pb.Heartbeat | Unreadable:
    return _read(pb.Heartbeat, data)


def _read(kind: type[M], data: bytes) -> M | Unreadable:
    if len(data) > MAX_MESSAGE_BYTES:
        return Unreadable(f"the message has {len(data)} bytes; at most {MAX_MESSAGE_BYTES} are accepted")
    try:
        return kind.FromString(data)
    except DecodeError as error:
        return Unreadable(f"the message is not a {kind.__name__}: {error}")
