"""master.edge.turnstile, over real sockets"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import NamedTuple

import gevent
import gevent.socket
import pytest
from gevent.pool import Pool
from prometheus_client import CollectorRegistry

from fleetpulse.master.audit.entry import AuditEntry
from fleetpulse.master.config import Limits
from fleetpulse.master.edge.door import ConnectionLimiter
from fleetpulse.master.edge.turnstile import TURNED_AWAY_A_TURN, AcceptRateLimiter
from fleetpulse.master.instruments import HttpInstruments

SLOW = Limits(client_requests_per_second=1, limit_loopback=True)
PATIENCE_SECONDS = 20.0


class Gate(NamedTuple):
    """Where it listens; whom it refused, and from where those came whom it let in."""

    address: tuple[str, int]
    refused: list[AuditEntry]
    inside: list[str]

    def comes(self, source: str) -> socket.socket:
        """One whose connection waits in the system's queue until the hub has its turn."""
        return socket.create_connection(self.address, PATIENCE_SECONDS, (source, 0))


@contextmanager
def gate(*, speaks_http: bool = True) -> Iterator[Gate]:
    """Everybody who is let in stays for a moment, and is closed then."""
    refused: list[AuditEntry] = []
    inside: list[str] = []

    def handle(_client: gevent.socket.socket, address: tuple[str, int]) -> None:
        inside.append(address[0])
        gevent.sleep(0)

    listener = gevent.socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    door = ConnectionLimiter(SLOW, HttpInstruments(CollectorRegistry()), 60.0, refused.append)
    turnstile = AcceptRateLimiter(listener, handle, Pool(10), door, speaks_http=speaks_http)
    turnstile.start()
    try:
        yield Gate(listener.getsockname(), refused, inside)
    finally:
        turnstile.stop()


def until(gate: Gate, refused: int) -> None:
    with gevent.Timeout(PATIENCE_SECONDS):
        while len(gate.refused) < refused:
            gevent.sleep(0.001)


def told(client: socket.socket) -> bytes:
    """All that it is told before it is closed, where nothing is awaited from the hub any more."""
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_who_comes_too_often_is_told_and_others_are_let_in() -> None:
    with gate() as way, ExitStack() as stack:
        eager = [stack.enter_context(way.comes("127.0.1.1")) for _ in range(4)]
        stack.enter_context(way.comes("127.0.1.2"))
        until(way, 2)
        assert way.inside == ["127.0.1.1", "127.0.1.1", "127.0.1.2"]
        assert [(one.client, one.action) for one in way.refused] == [("127.0.1.1", "connect")] * 2
        for client in eager[2:]:
            head, _, body = told(client).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 429 ")
            assert b"Retry-After: 1" in head
            assert b"this client asks too often" in body


@pytest.mark.parametrize("speaks_http", [True, False])
def test_where_there_is_tls_nobody_is_told_anything_without_it(*, speaks_http: bool) -> None:
    with gate(speaks_http=speaks_http) as way, ExitStack() as stack:
        eager = [stack.enter_context(way.comes("127.0.1.1")) for _ in range(3)]
        until(way, 1)
        assert bool(told(eager[2])) is speaks_http


def test_those_inside_have_their_turn_while_thousands_are_turned_away() -> None:
    with gate() as way, ExitStack() as stack:
        loop = gevent.get_hub().loop
        refused_by_turn: dict[int, int] = {}
        watcher = loop.check()
        watcher.start(lambda: refused_by_turn.__setitem__(loop.iteration, len(way.refused)))
        for _ in range(6 * TURNED_AWAY_A_TURN + 2):
            stack.enter_context(way.comes("127.0.1.1"))
        until(way, 6 * TURNED_AWAY_A_TURN)
        watcher.stop()
        watcher.close()
        counts = [0, *refused_by_turn.values()]
        assert max(after - before for before, after in pairwise(counts)) == TURNED_AWAY_A_TURN
