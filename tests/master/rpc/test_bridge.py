"""master.rpc.bridge"""

import asyncio
import threading
from collections.abc import Callable, Iterator

import gevent
import pytest

from fleetpulse.master.rpc.bridge import HubBridge
from tests.master.fleet import wait_until


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


def test_calls_of_a_thread_are_made_on_the_hub_in_their_order(bridge: HubBridge) -> None:
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


def test_calls_that_can_wait_are_made_together_and_in_order_with_the_others(
    loop: asyncio.AbstractEventLoop, bridge: HubBridge
) -> None:
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


def test_a_closed_bridge_makes_no_call(loop: asyncio.AbstractEventLoop) -> None:
    bridge = HubBridge(loop)
    made: list[int] = []
    bridge.call(made.append, 1)
    bridge.close()
    gevent.idle()
    assert made == []
