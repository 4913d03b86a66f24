"""The network proxy of a chaos run cuts, stalls and heals connections."""

import socket
from collections.abc import Iterator

import pytest

from tests.chaos.proxy import Link, Network
from tests.ports import LOCALHOST, free_port

TIMEOUT_SECONDS = 5.0
SILENCE_SECONDS = 0.1


class Pair:
    """A client connection and its connection on the server's side."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server

    def carries(self) -> bool:
        """Whether bytes are forwarded in both directions."""
        self.client.sendall(b"there")
        self.server.sendall(b"back")
        return self.server.recv(5) == b"there" and self.client.recv(4) == b"back"


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((LOCALHOST, 0)) as listener:
        listener.settimeout(TIMEOUT_SECONDS)
        yield listener


@pytest.fixture
def link(network: Network, listener: socket.socket) -> Link:
    return network.link(listener.getsockname()[1])


def connected(link: Link) -> socket.socket:
    return socket.create_connection((LOCALHOST, link.port), timeout=TIMEOUT_SECONDS)


@pytest.fixture
def pair(link: Link, listener: socket.socket) -> Iterator[Pair]:
    with connected(link) as client, listener.accept()[0] as server:
        server.settimeout(TIMEOUT_SECONDS)
        yield Pair(client, server)


def test_bytes_are_forwarded_both_ways(pair: Pair) -> None:
    assert pair.carries()


def test_end_of_stream_is_forwarded(pair: Pair) -> None:
    pair.client.shutdown(socket.SHUT_WR)
    assert pair.server.recv(1) == b""
    pair.server.sendall(b"last")
    assert pair.client.recv(4) == b"last"


def test_cut_resets_both_ends(network: Network, link: Link, pair: Pair) -> None:
    network.do(link.cut)
    with pytest.raises(ConnectionResetError):
        pair.client.recv(1)
    with pytest.raises(ConnectionResetError):
        pair.server.recv(1)


def test_new_connections_break_until_the_cut_is_healed(network: Network, link: Link, listener: socket.socket) -> None:
    network.do(link.cut)
    with pytest.raises(ConnectionResetError), connected(link) as refused:
        refused.recv(1)
    network.do(link.heal)
    with connected(link) as client, listener.accept()[0] as server:
        assert Pair(client, server).carries()


def test_stall_holds_bytes_until_it_is_healed(network: Network, link: Link, pair: Pair) -> None:
    network.do(link.stall)
    pair.client.sendall(b"late")
    pair.server.settimeout(SILENCE_SECONDS)
    with pytest.raises(TimeoutError):
        pair.server.recv(4)
    pair.server.settimeout(TIMEOUT_SECONDS)
    network.do(link.heal)
    assert pair.server.recv(4) == b"late"
    assert pair.carries()


def test_new_connection_during_a_stall_is_accepted_but_not_forwarded(
    network: Network, link: Link, listener: socket.socket
) -> None:
    network.do(link.stall)
    with connected(link) as client:
        client.sendall(b"hello")
        listener.settimeout(SILENCE_SECONDS)
        with pytest.raises(TimeoutError):
            listener.accept()
        listener.settimeout(TIMEOUT_SECONDS)
        network.do(link.heal)
        with listener.accept()[0] as server:
            assert server.recv(5) == b"hello"


def test_connection_to_a_stopped_master_is_reset(network: Network) -> None:
    link = network.link(free_port())
    with pytest.raises(ConnectionResetError), connected(link) as client:
        client.recv(1)
