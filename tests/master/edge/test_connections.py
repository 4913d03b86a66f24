"""master.edge.connections"""

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import NamedTuple

import gevent
import gevent.socket
import gevent.ssl
import pytest
import trustme
from gevent.pool import Pool
from gunicorn.http.errors import InvalidHeader
from prometheus_client import CollectorRegistry

from fleetpulse.master.audit.entries import AuditEntry, AuditOutcome
from fleetpulse.master.config import Limits
from fleetpulse.master.edge.accept import REFUSALS_PER_TURN, AcceptRateLimiter
from fleetpulse.master.edge.connections import Connection, ConnectionLimiter
from fleetpulse.master.edge.refusals import CLIENT_FULL, FULL, TOO_OFTEN, refusal_of
from fleetpulse.master.instruments import HttpInstruments

FEW = Limits(connections=4, client_connections=2, client_requests_per_second=1)


class LimitedPort:
    """A limiter, and sockets of clients."""

    def __init__(self, limits: Limits) -> None:
        self.registry = CollectorRegistry()
        self.recorded: list[AuditEntry] = []
        self.limiter = ConnectionLimiter(limits, HttpInstruments(self.registry), self.recorded.append)
        self.sockets: list[socket.socket] = []

    def connect(self, address: str) -> Connection:
        """Returns a connection whose other end stays open."""
        ours, theirs = gevent.socket.socketpair()
        self.sockets += [ours, theirs]
        return self.limiter.connection(ours, address)

    def admit(self, address: str, *, waits: bool = False) -> Connection:
        connection = self.connect(address)
        assert self.limiter.admit(connection) is None
        if waits:
            self.limiter.mark_idle(connection)
        return connection

    def open(self) -> float | None:
        return self.registry.get_sample_value("fleetpulse_http_connections")

    def rejected(self, reason: str) -> float | None:
        return self.registry.get_sample_value("fleetpulse_http_rejected_total", {"reason": reason})


@pytest.fixture
def port() -> Iterator[LimitedPort]:
    port = LimitedPort(FEW)
    yield port
    for each in port.sockets:
        each.close()


def refused(client: str, action: str, status: str, detail: str, target: str = "") -> AuditEntry:
    return AuditEntry("anonymous", None, "http", client, action, target, AuditOutcome.REFUSED, status, detail)


def is_cut(connection: Connection) -> bool:
    # Nothing is ever sent, so what there is to read is the end.
    return bool(select.select([connection.fileno()], [], [], 0.0)[0])


def test_connection_is_refused_when_all_are_busy(port: LimitedPort) -> None:
    inside = [port.admit(f"203.0.113.{number}") for number in range(4)]
    assert port.limiter.admit(port.connect("203.0.113.9")) is FULL
    assert port.open() == 4.0
    assert port.rejected("connections") == 1.0
    assert port.recorded == [
        refused("203.0.113.9", "connect", "503", "connections: the master has as many connections as it takes")
    ]
    port.limiter.release(inside[0])
    port.limiter.release(inside[0])
    assert port.open() == 3.0
    port.admit("203.0.113.9")


def test_longest_idle_connection_is_cut_when_the_table_is_full(port: LimitedPort) -> None:
    busy = port.admit("203.0.113.1")
    first, second, third = (port.admit(f"203.0.113.{number}", waits=True) for number in (2, 3, 4))
    port.limiter.mark_busy(first)
    port.limiter.mark_idle(first)
    port.admit("203.0.113.5")
    assert [is_cut(each) for each in (busy, first, second, third)] == [False, False, True, False]
    assert port.open() == 4.0
    assert port.rejected("idle") == 1.0
    assert port.recorded == []
    # The connection that was cut changes nothing any more.
    port.limiter.mark_busy(second)
    port.limiter.mark_idle(second)
    port.limiter.release(second)
    assert port.open() == 4.0


def test_client_at_its_limit_loses_its_own_idle_connection(port: LimitedPort) -> None:
    other = port.admit("203.0.113.1", waits=True)
    first = port.admit("203.0.113.2")
    second = port.admit("203.0.113.2", waits=True)
    port.admit("203.0.113.2")
    assert [is_cut(each) for each in (other, first, second)] == [False, False, True]
    assert port.limiter.admit(port.connect("203.0.113.2")) is CLIENT_FULL
    assert port.rejected("client_connections") == 1.0
    assert [one.detail.partition(":")[0] for one in port.recorded] == ["client_connections"]
    port.limiter.release(first)
    port.admit("203.0.113.2")


def test_only_connection_of_a_client_is_cut_for_its_next() -> None:
    port = LimitedPort(Limits(connections=1, client_connections=1))
    first = port.admit("203.0.113.2", waits=True)
    second = port.admit("203.0.113.2")
    assert is_cut(first)
    port.limiter.release(second)
    assert port.open() == 0.0
    for each in port.sockets:
        each.close()


def test_loopback_clients_are_not_limited(port: LimitedPort) -> None:
    inside = [port.admit("127.0.0.1") for _ in range(4)]
    assert not any(port.limiter.check_request(inside[0], "/") for _ in range(100))
    assert port.limiter.admit(port.connect("127.0.0.1")) is FULL


def test_client_above_its_request_rate_is_refused(port: LimitedPort) -> None:
    eager, other = port.admit("203.0.113.1"), port.admit("203.0.113.2")
    assert [port.limiter.check_request(eager, "/health") for _ in range(4)] == [None, None, None, TOO_OFTEN]
    assert port.limiter.check_request(other, "/") is None
    assert port.rejected("client_requests") == 1.0
    detail = "client_requests: this client asks too often"
    assert port.recorded == [refused("203.0.113.1", "request", "429", detail, "/health")]


def test_connection_counts_as_its_first_request(port: LimitedPort) -> None:
    assert [port.limiter.check_connect("203.0.113.1") for _ in range(3)] == [None, None, TOO_OFTEN]
    assert [(one.client, one.action, one.status) for one in port.recorded] == [("203.0.113.1", "connect", "429")]
    first = port.admit("203.0.113.1")
    assert [port.limiter.check_request(first, "/") for _ in range(2)] == [None, TOO_OFTEN]


def test_refused_request_is_not_quoted_in_the_audit_trail(port: LimitedPort) -> None:
    refusal = refusal_of(InvalidHeader("Authorization Bearer hunter2"))
    assert "hunter2" in refusal.detail
    port.limiter.record_refusal(refusal, "203.0.113.1", "request")
    port.limiter.record_refusal(refusal_of(ZeroDivisionError()), "203.0.113.1", "request")
    assert port.recorded == [refused("203.0.113.1", "request", "400", "malformed: InvalidHeader")]


def test_rate_zero_means_no_limit() -> None:
    port = LimitedPort(Limits(client_requests_per_second=0))
    eager = port.admit("203.0.113.1")
    assert not any(port.limiter.check_request(eager, "/") for _ in range(10_000))
    assert not any(port.limiter.check_connect("203.0.113.1") for _ in range(10_000))
    for each in port.sockets:
        each.close()


SLOW = Limits(client_requests_per_second=1, limit_loopback=True)
TIMEOUT_SECONDS = 20.0


class Acceptor(NamedTuple):
    """Where it listens, what it refused, and the addresses of accepted clients."""

    address: tuple[str, int]
    refused: list[AuditEntry]
    accepted: list[str]

    def connect(self, source: str) -> socket.socket:
        """Returns a client whose connection waits in the system's queue until the hub runs."""
        return socket.create_connection(self.address, TIMEOUT_SECONDS, (source, 0))


@contextmanager
def acceptor(*, speaks_http: bool = True) -> Iterator[Acceptor]:
    """Accepted clients stay for a moment and are closed then."""
    refused: list[AuditEntry] = []
    inside: list[str] = []

    def handle(_client: gevent.socket.socket, address: tuple[str, int]) -> None:
        inside.append(address[0])
        gevent.sleep(0)

    listener = gevent.socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    limiter = ConnectionLimiter(SLOW, HttpInstruments(CollectorRegistry()), refused.append)
    server = AcceptRateLimiter(listener, handle, Pool(10), limiter, speaks_http=speaks_http)
    server.start()
    try:
        yield Acceptor(listener.getsockname(), refused, inside)
    finally:
        server.stop()


def until(acceptor: Acceptor, refused: int) -> None:
    with gevent.Timeout(TIMEOUT_SECONDS):
        while len(acceptor.refused) < refused:
            gevent.sleep(0.001)


def received(client: socket.socket) -> bytes:
    """Everything that the client receives before its connection is closed. Blocks the hub."""
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_client_that_connects_too_often_is_refused_and_others_accepted() -> None:
    with acceptor() as way, ExitStack() as stack:
        eager = [stack.enter_context(way.connect("127.0.1.1")) for _ in range(4)]
        stack.enter_context(way.connect("127.0.1.2"))
        until(way, 2)
        assert way.accepted == ["127.0.1.1", "127.0.1.1", "127.0.1.2"]
        assert [(one.client, one.action) for one in way.refused] == [("127.0.1.1", "connect")] * 2
        for client in eager[2:]:
            head, _, body = received(client).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 429 ")
            assert b"Retry-After: 1" in head
            assert b"this client asks too often" in body


@pytest.mark.parametrize("speaks_http", [True, False])
def test_refusal_is_not_sent_in_plain_text_on_a_tls_port(*, speaks_http: bool) -> None:
    with acceptor(speaks_http=speaks_http) as way, ExitStack() as stack:
        eager = [stack.enter_context(way.connect("127.0.1.1")) for _ in range(3)]
        until(way, 1)
        assert bool(received(eager[2])) is speaks_http


def test_other_greenlets_run_while_thousands_are_refused() -> None:
    with acceptor() as way, ExitStack() as stack:
        loop = gevent.get_hub().loop
        refused_by_turn: dict[int, int] = {}
        watcher = loop.check()
        watcher.start(lambda: refused_by_turn.__setitem__(loop.iteration, len(way.refused)))
        for _ in range(6 * REFUSALS_PER_TURN + 2):
            stack.enter_context(way.connect("127.0.1.1"))
        until(way, 6 * REFUSALS_PER_TURN)
        watcher.stop()
        watcher.close()
        counts = [0, *refused_by_turn.values()]
        assert max(after - before for before, after in pairwise(counts)) == REFUSALS_PER_TURN


SHORT_SECONDS, LONG_SECONDS = 0.2, 20.0
NAME = "master.example"


class Ends(NamedTuple):
    """The ends of one connection, and the handshake on the master's side."""

    client: gevent.socket.socket
    limiter: ConnectionLimiter
    connection: Connection
    begins: "gevent.Greenlet[..., bool]"
    recorded: list[AuditEntry]
    registry: CollectorRegistry

    def details(self) -> list[str]:
        """Waits for the handshake to fail; returns the recorded details. Each is counted as well."""
        assert not self.begins.get(timeout=LONG_SECONDS)
        counted = self.registry.get_sample_value("fleetpulse_http_rejected_total", {"reason": "tls_handshake"})
        assert counted == len(self.recorded)
        assert {(one.source, one.client, one.action) for one in self.recorded} <= {("http", "203.0.113.1", "connect")}
        return [one.detail for one in self.recorded]


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def context(ca: trustme.CA) -> gevent.ssl.SSLContext:
    context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(NAME).configure_cert(context)
    return context


Connects = Callable[[float], Ends]


@pytest.fixture
def connects(context: gevent.ssl.SSLContext) -> Iterator[Connects]:
    with connecting(context) as connects:
        yield connects


@contextmanager
def connecting(context: gevent.ssl.SSLContext) -> Iterator[Connects]:
    all_ends: list[Ends] = []

    def connect(seconds: float) -> Ends:
        registry, recorded = CollectorRegistry(), list[AuditEntry]()
        limiter = ConnectionLimiter(Limits(connections=1), HttpInstruments(registry), recorded.append)
        ours, theirs = gevent.socket.socketpair()
        connection = limiter.connection(ours, "203.0.113.1")
        assert limiter.admit(connection) is None
        begins = gevent.spawn(connection.start_tls, context, seconds)
        ends = Ends(theirs, limiter, connection, begins, recorded, registry)
        all_ends.append(ends)
        return ends

    yield connect
    for ends in all_ends:
        ends.begins.kill()
        ends.connection.close()
        ends.client.close()


def client_context(ca: trustme.CA | None) -> gevent.ssl.SSLContext:
    context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_CLIENT)
    if ca is not None:
        ca.configure_trust(context)
    return context


def test_client_that_trusts_the_master_negotiates_tls(connects: Connects, ca: trustme.CA) -> None:
    ends = connects(LONG_SECONDS)
    client = client_context(ca).wrap_socket(ends.client, server_hostname=NAME)
    assert ends.begins.get(timeout=LONG_SECONDS)
    client.sendall(b"hello")
    assert ends.connection.recv(5) == b"hello"
    ends.connection.sendall(b"world")
    assert client.recv(5) == b"world"
    assert ends.recorded == []
    client.close()


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02"], ids=["nothing", "a little"])
def test_handshake_times_out_as_a_refusal(connects: Connects, said: bytes) -> None:
    ends = connects(SHORT_SECONDS)
    ends.client.sendall(said)
    assert ends.details() == ["tls_handshake: it did not end within 0.2 seconds"]


def test_plain_text_on_a_tls_port_is_a_refusal(connects: Connects) -> None:
    ends = connects(LONG_SECONDS)
    ends.client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert ends.details() == ["tls_handshake: HTTP_REQUEST"]


def test_client_that_does_not_trust_the_master_is_recorded(connects: Connects) -> None:
    ends = connects(LONG_SECONDS)
    with pytest.raises(gevent.ssl.SSLError):
        client_context(None).wrap_socket(ends.client, server_hostname=NAME)
    assert ends.details() == ["tls_handshake: TLSV1_ALERT_UNKNOWN_CA"]


@pytest.mark.parametrize("unread", [b"", b"x"], ids=["ended", "reset"])
def test_client_that_leaves_before_it_sends_is_not_recorded(connects: Connects, unread: bytes) -> None:
    ends = connects(LONG_SECONDS)
    gevent.sleep(0.01)
    ends.connection.sendall(unread)  # a connection that ends with something unread is reset
    ends.client.close()
    assert ends.details() == []


def test_client_that_leaves_during_the_handshake_is_recorded(connects: Connects) -> None:
    ends = connects(LONG_SECONDS)
    ends.client.sendall(b"\x16\x03\x01\x02")
    ends.client.close()
    (detail,) = ends.details()
    assert detail.startswith("tls_handshake: ")


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02"], ids=["nothing", "a little"])
def test_connection_cut_before_tls_is_not_recorded(connects: Connects, said: bytes) -> None:
    ends = connects(LONG_SECONDS)
    ends.client.sendall(said)
    gevent.sleep(0.01)
    ours, theirs = gevent.socket.socketpair()
    assert ends.limiter.admit(ends.limiter.connection(ours, "203.0.113.2")) is None
    assert ends.details() == []
    ours.close()
    theirs.close()
