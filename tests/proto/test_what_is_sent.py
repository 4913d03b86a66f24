"""What a worker sends is what the master takes: any value in any field, through the worker's code and the master's."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetpulse.master.rpc.stream import decode
from fleetpulse.master.tasks.messages import held_from
from fleetpulse.master.telemetry.decoding import decode_heartbeat, decode_registration
from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.cleaning import clean, make
from fleetpulse.proto.rules import MAX_MESSAGE_BYTES
from fleetpulse.worker.sampler import Sampler

MANY = 10_000
HOSTILE_TEXTS = [
    "", " ", "\x00", "a\nb", "/mnt/a\xa0b", "/mnt/cass\udce9", "/mnt/cass\udce8", "\ud800", "\u202e", "\U000e0001",
    "x" * 300, "x" * 299 + "y", "\udce9" * 300, "\U0001fae9" * 300, "x" * MANY, "ok", "\\x00", "a" * 255 + "\x00",
]  # fmt: skip
HOSTILE_NUMBERS = [
    *(math.nan, math.inf, -math.inf, -1, -1.5, 0, 1, 100, 100.5, 1e308, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1),
    *(2**64, 2**70, 4294967295, -(2**63)),
]
TEXTS = st.sampled_from(HOSTILE_TEXTS) | st.text(st.characters(codec=None), max_size=300)
NUMBERS = st.sampled_from(HOSTILE_NUMBERS) | st.floats() | st.integers()
SENDER = {"worker_id": "rack-7", "incarnation_id": "first"}
"""The worker checks these two at its start."""


def values_of(descriptor: Descriptor) -> st.SearchStrategy[dict[str, Any]]:
    """Raw values for some fields of a message, as a collector or an operator may give them."""
    return st.fixed_dictionaries(
        {}, optional={field.name: value_of(field) for field in descriptor.fields if field.name not in SENDER}
    )


def value_of(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    message = field.message_type
    one: st.SearchStrategy[Any]
    if message is not None and message.GetOptions().map_entry:
        return st.dictionaries(TEXTS, TEXTS, max_size=4)
    if message is not None:
        kind: type[Message] = getattr(pb, message.name)
        one = st.deferred(lambda: values_of(message)).map(lambda values: make(kind, **values))
    elif field.type == FieldDescriptor.TYPE_STRING:
        one = TEXTS
    elif field.type == FieldDescriptor.TYPE_BOOL:
        one = st.booleans()
    elif field.type == FieldDescriptor.TYPE_ENUM:
        one = st.integers(0, 2**31 - 1) | st.sampled_from([1, 2])
    else:
        one = NUMBERS
    return st.lists(one, max_size=3) if field.is_repeated else one


def heartbeats() -> st.SearchStrategy[pb.Heartbeat]:
    return values_of(pb.Heartbeat.DESCRIPTOR).map(lambda values: make(pb.Heartbeat, **SENDER, **values))


def registrations() -> st.SearchStrategy[pb.Register]:
    return values_of(pb.Register.DESCRIPTOR).map(lambda values: make(pb.Register, **SENDER, **values))


def accept(message: Message) -> None:
    """Raises what the master would refuse the message with."""
    data = message.SerializeToString()
    assert len(data) < MAX_MESSAGE_BYTES
    if isinstance(message, pb.Heartbeat):
        decode_heartbeat(decode(pb.Heartbeat, data))
    elif isinstance(message, pb.Register):
        register = decode(pb.Register, data)
        decode_registration(register)
        held_from(register)


PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@PATIENT
@given(heartbeats())
def test_master_takes_every_heartbeat(heartbeat: pb.Heartbeat) -> None:
    clean(heartbeat)
    accept(heartbeat)
    assert clean(heartbeat) == []


@PATIENT
@given(registrations())
def test_master_takes_every_registration(register: pb.Register) -> None:
    clean(register)
    accept(register)


# Each field by itself, so that none depends on luck


def places(descriptor: Descriptor, path: tuple[FieldDescriptor, ...] = ()) -> Iterator[tuple[FieldDescriptor, ...]]:
    """The way to every field in a message, through the messages in it."""
    for field in descriptor.fields:
        if field.name in SENDER:
            continue
        yield (*path, field)
        message = field.message_type
        if message is not None and not message.GetOptions().map_entry and len(path) < 6:
            yield from places(message, (*path, field))


PLACES = {
    f"{kind.DESCRIPTOR.name}.{'.'.join(field.name for field in path)}": (kind, path)
    for kind in (pb.Heartbeat, pb.Register)
    for path in places(kind.DESCRIPTOR)
}


def hostile(field: FieldDescriptor) -> list[Any]:
    if field.type == FieldDescriptor.TYPE_STRING:
        return HOSTILE_TEXTS
    if field.type == FieldDescriptor.TYPE_BOOL:
        return [True]
    return [0, 7] if field.type == FieldDescriptor.TYPE_ENUM else HOSTILE_NUMBERS


def built(path: tuple[FieldDescriptor, ...]) -> Iterator[Any]:
    """Hostile values for the first field of the path: in its last field, or many of them."""
    field, *rest = path
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        yield dict.fromkeys(HOSTILE_TEXTS, "x" * 300)
        yield {f"label{number}": "a" for number in range(MANY)}
        return
    if message is None:
        ones: list[Any] = hostile(field)
    elif not rest:
        ones = [getattr(pb, message.name)()]
    else:
        kind = getattr(pb, message.name)
        ones = [make(kind, **{rest[0].name: value}) for value in built(tuple(rest))]
    if not field.is_repeated:
        yield from ones
        return
    yield ones
    if not rest:
        yield [ones[-1]] * MANY
        yield ones * (MANY // len(ones))


@pytest.mark.parametrize("place", PLACES)
def test_master_takes_hostile_values_in(place: str) -> None:
    kind, path = PLACES[place]
    for value in built(path):
        message = make(kind, **SENDER, **{path[0].name: value})
        clean(message)
        accept(message)


def test_names_that_become_one_are_both_sent() -> None:
    names = ["/mnt/cass\udce9", "/mnt/cass\udce8", "x" * 300, "x" * 299 + "y", "a", "a"]
    heartbeat = pb.Heartbeat(filesystems=[make(pb.Filesystem, mountpoint=name) for name in names])
    clean(heartbeat)
    reading = decode_heartbeat(heartbeat)
    assert len({filesystem.mountpoint for filesystem in reading.filesystems}) == len(names)


class HostileCollector:
    """Returns what protobuf allows and the contract does not."""

    name = "hos\xa0tile"

    def collect(self) -> pb.Heartbeat:
        return pb.Heartbeat(
            cpu=pb.Cpu(usage_percent=math.nan),
            filesystems=[pb.Filesystem(mountpoint="\x00")] * 3,
            disk_devices=[pb.DiskDevice(device=f"sd{number}") for number in range(MANY)],
            custom=[pb.CustomMetric(name="no name", samples=[pb.CustomSample(value=-1)])],
            uptime_seconds=-1,
        )


def test_master_takes_what_the_sampler_makes_of_a_hostile_collector() -> None:
    sampler = Sampler([HostileCollector()], deadline_seconds=30.0)
    sampler.start()
    try:
        heartbeat = sampler.sample()
    finally:
        sampler.stop()
    accept(heartbeat)
    assert len(heartbeat.filesystems) == 3
    assert not heartbeat.HasField("uptime_seconds")
