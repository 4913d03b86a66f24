"""master.hub_queue"""

import threading
from collections.abc import Callable, Iterator
from itertools import pairwise

import gevent
import pytest
from gevent import socket

from fleetpulse.master.hub_queue import SLICE_SECONDS, HubQueue
from tests.master.fleet import wait_until


@pytest.fixture
def queue() -> Iterator[HubQueue]:
    queue = HubQueue("test")
    yield queue
    queue.close()


def in_a_thread(function: Callable[[], None]) -> None:
    """Runs a function to its end in a native thread while the hub is blocked."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_posted_calls_are_made_on_the_hub_in_order(queue: HubQueue) -> None:
    made: list[tuple[int, int]] = []

    def note(number: int) -> None:
        made.append((number, threading.get_ident()))

    def post() -> None:
        for first in range(0, 1000, 10):
            queue.post([lambda number=number: note(number) for number in range(first, first + 10)])  # type: ignore[misc]  # mypy knows no lambda with a default

    in_a_thread(post)
    assert made == []
    wait_until(lambda: len(made) == 1000)
    assert made == [(number, threading.get_ident()) for number in range(1000)]


def test_what_arrives_on_a_socket_waits_for_a_few_slices_at_most() -> None:
    now = 0.0
    made: list[int] = []
    seen: list[int] = []
    near, far = socket.socketpair()

    def call() -> None:
        nonlocal now
        now += SLICE_SECONDS
        made.append(1)
        if len(made) == 10:
            far.send(b"?")

    def answer() -> None:
        near.recv(1)
        seen.append(len(made))

    queue = HubQueue("test", lambda: now)
    answering = gevent.spawn(answer)
    gevent.sleep(0)
    queue.post([call] * 100)
    wait_until(lambda: len(made) == 100)
    answering.join()
    queue.close()
    near.close()
    far.close()
    assert seen[0] <= 10 + 3


def test_other_greenlets_run_after_every_slice() -> None:
    now = 0.0
    made: list[int] = []
    seen: list[int] = []

    def call() -> None:
        nonlocal now
        now += SLICE_SECONDS / 4
        made.append(1)

    def watch() -> None:
        while len(made) < 40:
            seen.append(len(made))
            gevent.sleep(0)

    queue = HubQueue("test", lambda: now)
    queue.post([call] * 40)
    gevent.spawn(watch).join(timeout=20.0)
    queue.close()
    assert max(later - earlier for earlier, later in pairwise(seen)) <= 5


def test_failing_call_is_logged_and_the_next_is_made(queue: HubQueue, caplog: pytest.LogCaptureFixture) -> None:
    made: list[str] = []

    def fail() -> None:
        raise RuntimeError("an unexpected error")

    queue.post([fail, lambda: made.append("next")])
    wait_until(lambda: made == ["next"])
    assert "an unexpected error" in caplog.text


@pytest.mark.parametrize(("make_calls", "expected"), [(True, ["before"]), (False, [])])
def test_close_makes_queued_calls_only_on_request(make_calls: bool, expected: list[str]) -> None:
    queue = HubQueue("test")
    made: list[str] = []
    queue.post([lambda: made.append("before")])
    queue.close(make_calls=make_calls)
    in_a_thread(lambda: queue.post([lambda: made.append("after")]))  # a thread that was stuck is late
    gevent.idle()
    assert made == expected
