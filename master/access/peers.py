"""Whose the other end of a connection is, as the kernel says: which user's on loopback, or a task's on this machine.

One exact look-up of the peer's socket by ``sock_diag`` (netlink) takes 10 microseconds, however many sockets there are.
``/proc/net/tcp`` answers the same where netlink is not allowed, but lists every socket.
"""

import contextlib
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

from fleetpulse.proto.rules import TASK_DEVICE

ROOT = 0

_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG, linux/netlink.h
_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY, linux/sock_diag.h
_IS_REQUEST = 1  # NLM_F_REQUEST
_ANY_STATE = _ANY_COOKIE = 0xFFFFFFFF
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_QUERY = struct.Struct("=BBBxI2s2s16s16sIII")  # inet_diag_req_v2, linux/inet_diag.h
_ANSWER = struct.Struct("=BBxx2s2s44xIIIII")  # inet_diag_msg: family, state, ports; expires, queues, uid, inode
_REPLY_SECONDS = 1.0
"""The kernel answers before ``sendto`` returns; never reached."""

_GET_ROUTE, _ROUTE = 26, 24  # RTM_GETROUTE and RTM_NEWROUTE, linux/rtnetlink.h
_ROUTE_HEADER = struct.Struct("=8BI")  # rtmsg: family, length of the target in bits, ...
_ATTRIBUTE = struct.Struct("=HH")  # rtattr: length, type
_TARGET, _DEVICE = 1, 4  # RTA_DST, RTA_OIF

_OF_A_CONNECTION = range(1, 10)
"""TCP states of a socket that may have an owner: neither listening nor a request that is not accepted yet."""

_TIME_WAIT = 6

_MAPPED = "0000000000000000" + f"{int.from_bytes(bytes((0, 0, 255, 255)), sys.byteorder):08X}"
"""Before an IPv4 address in ``tcp6``: ``::ffff:0:0/96`` as the kernel writes it."""


class Endpoint(NamedTuple):
    """An IP address and a port, as a socket names them."""

    host: str
    port: int


FindUser = Callable[[Endpoint, Endpoint], int | None]
"""Called with the peer's end and this end; returns the user id of the peer's socket, ``None`` if it has no owner.

A closed socket and one that the kernel keeps after its owner closed it (inode 0) have none. Raises ``OSError`` where
the system does not tell.
"""


class _Netlink:
    """A netlink socket for questions with one answer. For one thread."""

    def __init__(self, protocol: int) -> None:
        """Raises ``OSError`` where netlink is not allowed."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.settimeout(_REPLY_SECONDS)
        self._number = 0

    def ask(self, question: int, query: bytes) -> tuple[int, bytes]:
        """Returns the type of the answer, and the answer with its header. Raises ``OSError``."""
        self._number = (self._number + 1) & 0xFFFFFFFF
        header = _HEADER.pack(_HEADER.size + len(query), question, _IS_REQUEST, self._number, 0)
        self._socket.sendto(header + query, (0, 0))
        while True:
            answer = self._socket.recv(8192)
            length, kind, _, number, _ = _HEADER.unpack_from(answer)
            if number == self._number:
                return kind, answer[:length]

    def close(self) -> None:
        self._socket.close()


class NetlinkUsers:
    """Asks ``sock_diag`` for one socket. For one thread. The kernel answers at once, so it may be called on the hub."""

    def __init__(self) -> None:
        """Raises ``OSError`` where netlink is not allowed."""
        self._netlink = _Netlink(_SOCK_DIAG)

    def __call__(self, peer: Endpoint, local: Endpoint) -> int | None:
        """See ``FindUser``."""
        family, addresses = _packed(peer, local)
        query = _QUERY.pack(
            family,
            socket.IPPROTO_TCP,
            0,
            _ANY_STATE,
            _port(peer),
            _port(local),
            *addresses,
            0,
            _ANY_COOKIE,
            _ANY_COOKIE,
        )
        kind, answer = self._netlink.ask(_BY_FAMILY, query)
        if kind != _BY_FAMILY:
            (code,) = struct.unpack_from("=i", answer, _HEADER.size)
            if code == -2:  # ENOENT
                return None
            raise OSError(-code, os.strerror(-code))
        _, state, source, target, _, _, _, user, inode = _ANSWER.unpack_from(answer, _HEADER.size)
        # The kernel falls back to a listening socket on the peer's port.
        is_exact = (source, target) == (_port(peer), _port(local)) and state in _OF_A_CONNECTION and state != _TIME_WAIT
        return user if is_exact and inode else None

    def close(self) -> None:
        """Closes the netlink socket."""
        self._netlink.close()


class TableUsers:
    """Reads ``/proc/net/tcp`` and ``tcp6``: milliseconds with many sockets, so not for the hub."""

    def __init__(self, folder: Path = Path("/proc/net")) -> None:
        self._folder = folder

    def __call__(self, peer: Endpoint, local: Endpoint) -> int | None:
        """See ``FindUser``."""
        family, addresses = _packed(peer, local)
        wanted = [_in_table(addresses[0], peer.port), _in_table(addresses[1], local.port)]
        tables = [("tcp" if family == socket.AF_INET else "tcp6", wanted)]
        if family == socket.AF_INET:
            # A client may have connected by an IPv6 socket, to ::ffff:127.0.0.1.
            tables.append(("tcp6", [_MAPPED + one for one in wanted]))
        for name, ends in tables:
            with (self._folder / name).open(encoding="ascii") as rows:
                next(rows)
                for row in rows:
                    fields = row.split()
                    if fields[1:3] == ends:
                        has_owner = int(fields[3], 16) in _OF_A_CONNECTION and int(fields[3], 16) != _TIME_WAIT
                        return int(fields[7]) if has_owner and fields[9] != "0" else None
        return None


class Peers(Protocol):
    """Who is served without a token or a certificate. For one thread."""

    is_slow: bool
    """Whether it waits for a file, so that the hub must not call it itself."""

    def is_own(self, peer: Endpoint, local: Endpoint) -> bool:
        """Returns whether a connection's other end is served. An error of the system is no."""

    def close(self) -> None:
        """Closes what it asks with."""


class TrustedNetwork:
    """Everybody but the containers of this machine's tasks, by the device that leads to an address: ``Peers``."""

    is_slow = False

    def __init__(self, device: str = TASK_DEVICE) -> None:
        """Raises ``OSError`` where netlink is not allowed."""
        self._device = device
        self._netlink = _Netlink(socket.NETLINK_ROUTE)

    def is_own(self, peer: Endpoint, local: Endpoint) -> bool:
        """Returns whether the address is no task's. Asks the kernel, which takes 10 microseconds."""
        address, _, scope = peer.host.partition("%")
        try:
            return (scope or self._device_to(address)) != self._device
        except (OSError, ValueError):
            return False

    def close(self) -> None:
        """Closes the netlink socket."""
        self._netlink.close()

    def _device_to(self, address: str) -> str:
        """Returns the device of the route to an address; empty if there is none."""
        plain = _plain(address)
        family = socket.AF_INET if plain.version == 4 else socket.AF_INET6
        target = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(plain.packed), _TARGET) + plain.packed
        query = _ROUTE_HEADER.pack(family, plain.max_prefixlen, 0, 0, 0, 0, 0, 0, 0) + target
        kind, answer = self._netlink.ask(_GET_ROUTE, query)
        if kind != _ROUTE:
            return ""
        at = _HEADER.size + _ROUTE_HEADER.size
        while at + _ATTRIBUTE.size <= len(answer):
            size, name = _ATTRIBUTE.unpack_from(answer, at)
            if name == _DEVICE:
                return socket.if_indextoname(struct.unpack_from("=I", answer, at + _ATTRIBUTE.size)[0])
            at += (size + 3) & ~3
        return ""


class PeerCheck:
    """Whether the other end of a connection belongs to one of ``users``: ``Peers``."""

    def __init__(self, find: FindUser, users: Iterable[int], *, is_slow: bool = False) -> None:
        self._find, self._users = find, frozenset(users)
        self.is_slow = is_slow

    def is_own(self, peer: Endpoint, local: Endpoint) -> bool:
        """Returns whether one of the users has the other end open. An error of the system is no."""
        try:
            return self._find(peer, local) in self._users
        except (OSError, ValueError):
            return False

    def close(self) -> None:
        """Closes what it asks with."""
        if isinstance(self._find, NetlinkUsers):
            self._find.close()


def peer_check() -> PeerCheck | None:
    """Returns a check for this process's user and root; ``None`` where the system does not tell whose a socket is.

    Tries the ways on a connection of its own first: a sandbox may forbid netlink or hide ``/proc``.
    """
    users = {os.geteuid(), ROOT}
    with contextlib.suppress(OSError):
        find = NetlinkUsers()
        if _tells(find):
            return PeerCheck(find, users)
        find.close()
    table = TableUsers()
    return PeerCheck(table, users, is_slow=True) if _tells(table) else None


def trusted_network() -> TrustedNetwork | None:
    """Returns the check of a trusted network; ``None`` where the system does not tell which way an address is."""
    try:
        return TrustedNetwork()
    except OSError:
        return None


def _tells(find: FindUser) -> bool:
    """Whether a connection of this process to itself is found to be its user's."""
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname(), _REPLY_SECONDS) as client,
        ):
            return find(Endpoint(*client.getsockname()), Endpoint(*server.getsockname())) == os.geteuid()
    except (OSError, ValueError):
        return False


def endpoint_of(name: tuple[str, int] | tuple[str, int, int, int]) -> Endpoint:
    """Returns the end that ``getsockname`` or ``getpeername`` gave."""
    return Endpoint(name[0], name[1])


def _packed(peer: Endpoint, local: Endpoint) -> tuple[int, tuple[bytes, bytes]]:
    """Returns the family and both addresses; IPv4 for a pair of mapped ones. Raises ``ValueError`` for other text."""
    ends = _packed_host(peer.host), _packed_host(local.host)
    if len(ends[0]) != len(ends[1]):
        raise ValueError("the two ends are of different families")
    return socket.AF_INET if len(ends[0]) == 4 else socket.AF_INET6, ends


def _packed_host(host: str) -> bytes:
    try:
        return socket.inet_pton(socket.AF_INET, host)  # a tenth of the time of ipaddress
    except OSError:
        return _plain(host.partition("%")[0]).packed


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Returns the address; a mapped one as IPv4. Raises ``ValueError`` for other text."""
    parsed = ipaddress.ip_address(address)
    return getattr(parsed, "ipv4_mapped", None) or parsed


def _port(end: Endpoint) -> bytes:
    return end.port.to_bytes(2, "big")


def _in_table(packed: bytes, port: int) -> str:
    """Returns an end as the kernel writes it: words of 32 bits in the machine's order, and the port."""
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"
