"""Whose the other end of a connection is, by both ways to ask the system."""

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetpulse.master.access.peers import (
    Endpoint,
    FindUser,
    NetlinkUsers,
    PeerCheck,
    TableUsers,
    endpoint_of,
    peer_check,
)
from tests.e2e.waiting import eventually

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["netlink", "table"])
def find(request: pytest.FixtureRequest) -> Iterator[FindUser]:
    if request.param == "table":
        yield TableUsers()
        return
    users = NetlinkUsers()
    yield users
    users.close()


def connected(listen: str, connect: str) -> Pair:
    """A client that connected to ``connect``, and the accepted socket of a listener on ``listen``."""
    family = socket.AF_INET6 if ":" in listen else socket.AF_INET
    with socket.create_server((listen, 0), family=family, dualstack_ipv6=listen == "::") as server:
        client = socket.socket(socket.AF_INET6 if ":" in connect else socket.AF_INET)
        client.connect((connect, server.getsockname()[1]))
        return client, server.accept()[0]


def ends(accepted: socket.socket) -> tuple[Endpoint, Endpoint]:
    return endpoint_of(accepted.getpeername()), endpoint_of(accepted.getsockname())


@pytest.mark.parametrize(
    ("listen", "connect"),
    [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1"), ("::", "::ffff:127.0.0.1")],
)
def test_user_of_the_other_end(find: FindUser, listen: str, connect: str) -> None:
    client, accepted = connected(listen, connect)
    with client, accepted:
        assert find(*ends(accepted)) == os.geteuid()


def test_half_closed_client_still_has_its_user(find: FindUser) -> None:
    client, accepted = connected("127.0.0.1", "127.0.0.1")
    with client, accepted:
        client.shutdown(socket.SHUT_WR)
        assert find(*ends(accepted)) == os.geteuid()


def test_closed_client_has_none(find: FindUser) -> None:
    """The kernel keeps its socket for a while, without an inode, as if it were root's."""
    client, accepted = connected("127.0.0.1", "127.0.0.1")
    with accepted:
        both = ends(accepted)
        client.close()
        assert find(*both) is None
    eventually(lambda: " 06 " in Path("/proc/net/tcp").read_text())
    assert find(*both) is None


def test_reset_client_has_none(find: FindUser) -> None:
    client, accepted = connected("127.0.0.1", "127.0.0.1")
    with accepted:
        both = ends(accepted)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert find(*both) is None


def test_listener_on_the_peers_port_is_not_the_peer(find: FindUser) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert find(endpoint_of(server.getsockname()), Endpoint("127.0.0.1", 9)) is None


def test_not_every_pair_of_ends_is_a_connection(find: FindUser) -> None:
    assert find(Endpoint("127.0.0.1", 5), Endpoint("127.0.0.1", 9)) is None
    check = PeerCheck(find, {os.geteuid()})
    assert not check.is_own(Endpoint("127.0.0.1", 5), Endpoint("::1", 9))
    assert not check.is_own(Endpoint("a-host", 5), Endpoint("127.0.0.1", 9))


@pytest.mark.parametrize(
    ("state", "inode", "user"), [("01", 7, 1000), ("01", 0, None), ("06", 7, None), ("0A", 7, None)]
)
def test_table_row_without_an_owner(tmp_path: Path, state: str, inode: int, user: int | None) -> None:
    row = f"0: 0100007F:9C40 0100007F:1F90 {state} 00000000:00000000 00:00000000 00000000 1000 0 {inode} 1 0"
    (tmp_path / "tcp").write_text(f"a title\n   {row}\n")
    (tmp_path / "tcp6").write_text("a title\n")
    assert TableUsers(tmp_path)(Endpoint("127.0.0.1", 40000), Endpoint("127.0.0.1", 8080)) == user


def test_other_users_are_not_own() -> None:
    client, accepted = connected("127.0.0.1", "127.0.0.1")
    with client, accepted:
        users = NetlinkUsers()
        assert PeerCheck(users, {os.geteuid()}).is_own(*ends(accepted))
        assert not PeerCheck(users, {os.geteuid() + 1}).is_own(*ends(accepted))
        users.close()


def test_system_without_the_tables_is_found_out(tmp_path: Path) -> None:
    check = PeerCheck(TableUsers(tmp_path / "none"), {os.geteuid()})
    assert not check.is_own(Endpoint("127.0.0.1", 5), Endpoint("127.0.0.1", 9))
    found = peer_check()
    assert found is not None
    assert not found.is_slow
    found.close()
