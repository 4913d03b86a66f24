"""master.rpc.stream: the bridge to the hub, and decoding"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.master.errors import InvalidMessage
from fleetpulse.master.rpc.stream import GATHER_SECONDS, LISTEN_SECONDS, HubBridge, Stream, decode, is_heartbeat
from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import MAX_MESSAGE_BYTES
from tests.master.fleet import full_heartbeat, wait_until
from tests.master.rpc.manual_loop import ManualLoop


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One that runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def bridge(loop: asyncio.AbstractEventLoop) -> Iterator[HubBridge]:
    bridge = HubBridge(loop)
    yield bridge
    bridge.close()


def in_a_thread(function: Callable[[], None]) -> None:
    """Run it in a native thread, to its end, while the hub stands still."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_calls_of_a_thread_are_made_on_the_hub_in_order(bridge: HubBridge) -> None:
    made: list[tuple[int, int]] = []

    def note(number: int) -> None:
        made.append((number, threading.get_ident()))

    def ask() -> None:
        for number in range(1000):
            bridge.call(note, number)

    in_a_thread(ask)
    assert made == []
    wait_until(lambda: len(made) == 1000)
    assert made == [(number, threading.get_ident()) for number in range(1000)]


def test_gathered_calls_are_made_together_and_in_order(loop: asyncio.AbstractEventLoop, bridge: HubBridge) -> None:
    made: list[str] = []
    turns: list[int] = []

    def note(name: str) -> None:
        made.append(name)
        turns.append(hub_turns)

    async def ask() -> None:
        bridge.call_soon(partial(note, "first"))
        bridge.call_soon(partial(note, "second"))

    hub_turns = 0
    asyncio.run_coroutine_threadsafe(ask(), loop).result()
    while len(made) < 2:
        hub_turns += 1
        gevent.sleep(0.001)
    assert made == ["first", "second"]
    assert turns[0] == turns[1]

    async def ask_again() -> None:
        bridge.call_soon(partial(note, "third"))
        bridge.call(note, "fourth")
        bridge.call_soon(partial(note, "fifth"))

    asyncio.run_coroutine_threadsafe(ask_again(), loop).result()
    wait_until(lambda: made == ["first", "second", "third", "fourth", "fifth"])


def test_closed_bridge_makes_no_calls(loop: asyncio.AbstractEventLoop) -> None:
    bridge = HubBridge(loop)
    made: list[int] = []
    bridge.call(made.append, 1)
    bridge.close()
    gevent.idle()
    assert made == []


@pytest.fixture
def manual_loop() -> Iterator[ManualLoop]:
    loop = ManualLoop()
    yield loop
    loop.close()


@pytest.fixture
def manual_bridge(manual_loop: ManualLoop) -> Iterator[HubBridge]:
    bridge = HubBridge(manual_loop, lambda: manual_loop.now)
    yield bridge
    bridge.close()


def test_backlog_is_as_old_as_the_oldest_call_that_waits(manual_loop: ManualLoop, manual_bridge: HubBridge) -> None:
    made: list[str] = []
    assert manual_bridge.backlog_seconds() == 0.0
    manual_bridge.call_soon(lambda: made.append("first"))
    manual_loop.advance(2.0)
    manual_bridge.call_soon(lambda: made.append("second"))
    manual_loop.advance(3.0)
    assert (made, manual_bridge.backlog_seconds()) == ([], 5.0)
    assert manual_bridge.heard_until(1004.0) == 1000.0
    assert manual_bridge.is_behind()
    gevent.idle()
    assert (made, manual_bridge.backlog_seconds()) == (["first", "second"], 0.0)
    assert manual_bridge.heard_until(1004.0) == 1004.0
    assert not manual_bridge.is_behind()


def test_call_that_arrives_later_is_the_oldest_once_the_earlier_are_made(
    manual_loop: ManualLoop, manual_bridge: HubBridge
) -> None:
    manual_bridge.call_soon(lambda: None)
    manual_loop.advance(1.0)
    manual_bridge.call_soon(lambda: None)
    # Its gathering has not ended, so nothing wakes the hub for it.
    gevent.idle()
    manual_loop.advance(GATHER_SECONDS / 2)
    assert manual_bridge.backlog_seconds() == pytest.approx(GATHER_SECONDS / 2)


def test_what_arrives_while_the_thread_stands_still_counts_as_waiting(
    manual_loop: ManualLoop, manual_bridge: HubBridge
) -> None:
    manual_bridge.listen()
    manual_loop.advance(60.0)
    assert manual_bridge.backlog_seconds() == 0.0
    stands_still_since = manual_loop.now
    manual_loop.now += 20.0
    assert manual_bridge.heard_until(manual_loop.now) == stands_still_since
    manual_loop.advance(0.0)
    # It runs again, but has not read what arrived.
    assert manual_bridge.heard_until(manual_loop.now) == stands_still_since
    manual_loop.advance(2 * LISTEN_SECONDS)
    assert manual_bridge.backlog_seconds() == 0.0


# What a stream receives


def a_beat(number: int) -> bytes:
    return pb.WorkerMessage(heartbeat=pb.Heartbeat(worker_id="rack-7", sequence_number=number)).SerializeToString()


def an_update(number: int) -> bytes:
    return pb.WorkerMessage(task_update=pb.TaskUpdate(update_number=number)).SerializeToString()


def test_hub_is_told_once_of_all_that_it_takes_at_once(manual_loop: ManualLoop) -> None:
    stream = Stream(manual_loop, "")
    told = [stream.put(an_update(1), 1.0), stream.put(a_beat(1), 2.0), stream.put(an_update(2), 3.0)]
    assert (told, stream.waiting, stream.heard_at) == ([True, False, False], 3, 3.0)
    assert stream.take() == ([an_update(1), a_beat(1), an_update(2)], 2.0, 0)
    assert stream.take().messages == []
    assert stream.put(a_beat(2), 4.0)
    assert stream.take() == ([a_beat(2)], 4.0, 0)


@given(kinds=st.lists(st.booleans(), max_size=30))
def test_only_the_newest_heartbeat_is_kept_and_overtakes_nothing(kinds: list[bool]) -> None:
    loop = ManualLoop()
    stream = Stream(loop, "")
    loop.close()
    sent = [a_beat(number) if beats else an_update(number) for number, beats in enumerate(kinds, 1)]
    for number, data in enumerate(sent, 1):
        stream.put(data, float(number))
    beats = [data for data in sent if is_heartbeat(data)]
    received = stream.take()
    assert received.messages == [data for data in sent if data not in beats[:-1]]
    assert received.superseded == max(0, len(beats) - 1)
    if beats:
        assert received.heartbeat_at == sent.index(beats[-1]) + 1


def test_message_that_only_begins_like_a_heartbeat_is_never_replaced(manual_loop: ManualLoop) -> None:
    stream = Stream(manual_loop, "")
    odd = a_beat(1) + an_update(1)
    for data in (odd, a_beat(2), a_beat(3), odd, a_beat(4)):
        stream.put(data, 1.0)
    assert stream.take().messages == [odd, a_beat(3), odd, a_beat(4)]


@given(data=st.binary(max_size=40))
def test_no_bytes_break_the_look_at_their_kind(data: bytes) -> None:
    assert is_heartbeat(data) in (True, False)
    assert is_heartbeat(b"\x12" + bytes((len(data),)) + data)
    assert not is_heartbeat(b"\x12" + bytes((len(data) + 1,)) + data)


def test_every_serialized_heartbeat_is_known_as_one() -> None:
    custom = [pb.CustomMetric(name="m", help="x" * size) for size in (0, 100, 20_000)]
    for count in range(4):
        message = pb.WorkerMessage(heartbeat=pb.Heartbeat(worker_id="rack-7", custom=custom[:count]))
        assert is_heartbeat(message.SerializeToString())
    assert is_heartbeat(pb.WorkerMessage(heartbeat=full_heartbeat()).SerializeToString())
    for other in (
        pb.WorkerMessage(),
        pb.WorkerMessage(goodbye=pb.Goodbye()),
        pb.WorkerMessage(log_chunk=pb.LogChunk()),
    ):
        assert not is_heartbeat(other.SerializeToString())


# Decoding


def test_serialized_message_is_decoded() -> None:
    message = pb.WorkerMessage(heartbeat=full_heartbeat())
    assert decode(pb.WorkerMessage, message.SerializeToString()) == message
    assert decode(pb.Heartbeat, full_heartbeat().SerializeToString()) == full_heartbeat()


def test_no_bytes_are_an_empty_message() -> None:
    assert decode(pb.WorkerMessage, b"") == pb.WorkerMessage()
    assert decode(pb.Heartbeat, b"") == pb.Heartbeat()


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05ab", b"GET / HTTP/1.1\r\n", b"\x0a\x02\xff\xfe"])
def test_malformed_message_is_refused_with_a_reason(data: bytes) -> None:
    for kind in (pb.WorkerMessage, pb.Heartbeat):
        with pytest.raises(InvalidMessage, match=f"the message is not a {kind.__name__}: "):
            decode(kind, data)


def test_message_above_the_size_limit_is_refused() -> None:
    most = pb.Heartbeat(worker_id="a" * (MAX_MESSAGE_BYTES - 4)).SerializeToString()
    assert len(most) == MAX_MESSAGE_BYTES
    assert isinstance(decode(pb.Heartbeat, most), pb.Heartbeat)
    for data in (most + b"\x18\x01", bytes(10 * 1024 * 1024)):
        with pytest.raises(InvalidMessage) as caught:
            decode(pb.Heartbeat, data)
        assert str(caught.value) == f"the message has {len(data)} bytes; at most {MAX_MESSAGE_BYTES} are accepted"


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    for kind in (pb.WorkerMessage, pb.Heartbeat):
        with suppress(InvalidMessage):
            assert isinstance(decode(kind, data), kind)
