"""master.rpc.stream: the bridge to the hub, and decoding"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.master.errors import InvalidMessage
from fleetpulse.master.rpc.stream import HubBridge, decode
from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import MAX_MESSAGE_BYTES
from tests.master.fleet import full_heartbeat, wait_until


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
        bridge.call_soon(note, "first")
        bridge.call_soon(note, "second")

    hub_turns = 0
    asyncio.run_coroutine_threadsafe(ask(), loop).result()
    while len(made) < 2:
        hub_turns += 1
        gevent.sleep(0.001)
    assert made == ["first", "second"]
    assert turns[0] == turns[1]

    async def ask_again() -> None:
        bridge.call_soon(note, "third")
        bridge.call(note, "fourth")
        bridge.call_soon(note, "fifth")

    asyncio.run_coroutine_threadsafe(ask_again(), loop).result()
    wait_until(lambda: made == ["first", "second", "third", "fourth", "fifth"])


def test_closed_bridge_makes_no_calls(loop: asyncio.AbstractEventLoop) -> None:
    bridge = HubBridge(loop)
    made: list[int] = []
    bridge.call(made.append, 1)
    bridge.close()
    gevent.idle()
    assert made == []


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
