"""master.edge.connection, master.server: how TLS begins, or does not, over a real socket"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import gevent
import gevent.socket
import gevent.ssl
import pytest
import trustme
from prometheus_client import CollectorRegistry

from fleetpulse.master.audit.entry import AuditEntry
from fleetpulse.master.config import Limits
from fleetpulse.master.edge.connection import Connection
from fleetpulse.master.edge.door import ConnectionLimiter
from fleetpulse.master.instruments import HttpInstruments

HASTY_SECONDS, PATIENT_SECONDS = 0.2, 20.0
NAME = "master.example"


class Ends(NamedTuple):
    """Of one connection, and how its handshake goes on the master's side."""

    client: gevent.socket.socket
    door: ConnectionLimiter
    connection: Connection
    begins: "gevent.Greenlet[..., bool]"
    recorded: list[AuditEntry]
    registry: CollectorRegistry

    def details(self) -> list[str]:
        """Why it was refused, once it is decided; each refusal is counted as well."""
        assert not self.begins.get(timeout=PATIENT_SECONDS)
        counted = self.registry.get_sample_value("fleetpulse_http_rejected_total", {"reason": "tls_handshake"})
        assert counted == len(self.recorded)
        assert {(one.door, one.client, one.action) for one in self.recorded} <= {("rest", "203.0.113.1", "connect")}
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
        door = ConnectionLimiter(Limits(connections=1), HttpInstruments(registry), 60.0, recorded.append)
        ours, theirs = gevent.socket.socketpair()
        connection = door.connection(ours, "203.0.113.1")
        assert door.admit(connection) is None
        begins = gevent.spawn(connection.shake_hands, context, seconds)
        ends = Ends(theirs, door, connection, begins, recorded, registry)
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


def test_whoever_trusts_the_master_speaks_tls_with_it(connects: Connects, ca: trustme.CA) -> None:
    ends = connects(PATIENT_SECONDS)
    client = client_context(ca).wrap_socket(ends.client, server_hostname=NAME)
    assert ends.begins.get(timeout=PATIENT_SECONDS)
    client.sendall(b"hello")
    assert ends.connection.recv(5) == b"hello"
    ends.connection.sendall(b"world")
    assert client.recv(5) == b"world"
    assert ends.recorded == []
    client.close()


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02"], ids=["nothing", "a little"])
def test_a_handshake_that_never_ends_is_a_refusal(connects: Connects, said: bytes) -> None:
    ends = connects(HASTY_SECONDS)
    ends.client.sendall(said)
    assert ends.details() == ["tls_handshake: it did not end within 0.2 seconds"]


def test_what_is_no_tls_is_a_refusal(connects: Connects) -> None:
    ends = connects(PATIENT_SECONDS)
    ends.client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert ends.details() == ["tls_handshake: HTTP_REQUEST"]


def test_a_client_that_does_not_trust_the_master_is_told_of(connects: Connects) -> None:
    ends = connects(PATIENT_SECONDS)
    with pytest.raises(gevent.ssl.SSLError):
        client_context(None).wrap_socket(ends.client, server_hostname=NAME)
    assert ends.details() == ["tls_handshake: TLSV1_ALERT_UNKNOWN_CA"]


@pytest.mark.parametrize("unread", [b"", b"x"], ids=["ended", "reset"])
def test_who_goes_before_it_says_anything_is_refused_nothing(connects: Connects, unread: bytes) -> None:
    ends = connects(PATIENT_SECONDS)
    gevent.sleep(0.01)
    ends.connection.sendall(unread)  # a connection that ends with something unread is reset
    ends.client.close()
    assert ends.details() == []


def test_who_goes_in_the_middle_is_told_of(connects: Connects) -> None:
    ends = connects(PATIENT_SECONDS)
    ends.client.sendall(b"\x16\x03\x01\x02")
    ends.client.close()
    (told,) = ends.details()
    assert told.startswith("tls_handshake: ")


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02"], ids=["nothing", "a little"])
def test_who_makes_room_before_tls_has_begun_is_refused_nothing(connects: Connects, said: bytes) -> None:
    ends = connects(PATIENT_SECONDS)
    ends.client.sendall(said)
    gevent.sleep(0.01)
    ours, theirs = gevent.socket.socketpair()
    assert ends.door.admit(ends.door.connection(ours, "203.0.113.2")) is None
    assert ends.details() == []
    ours.close()
    theirs.close()
