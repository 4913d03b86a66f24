"""Who listens on a port of this machine.

While a master is down, any user of its machine could listen in its place, also on ``[::1]`` alone while the master
listens on 127.0.0.1. So a client asks the kernel before it sends anything that only the master may get.
"""

import ipaddress
import os
import pwd
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

MASTER_USER = "FLEETPULSE_MASTER_USER"
"""The environment variable with the name or number of a further user whose master is trusted."""

UsersListening = Callable[[int], frozenset[int]]
"""Returns the user ids that listen on a TCP port of this machine."""

_ROOT = 0
_SOCKET_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENING = "0A"


class ForeignListener(Exception):
    """Another user listens on the port of the master. The message says who, and what to do."""


def is_loopback(host: str) -> bool:
    """Returns whether this host, a name or an address without brackets, is this machine for everybody."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def users_listening(port: int, tables: Sequence[Path] = _SOCKET_TABLES) -> frozenset[int]:
    """The user ids that listen on this port, on any address. Empty where the system does not tell."""
    return frozenset(user for table in tables for user in _users_in(table, port))


def check_listener(port: int, master_user: str = "", users_listening: UsersListening = users_listening) -> None:
    """Raises ``ForeignListener`` if a user listens who is not root, this one or ``master_user``, a name or number."""
    trusted = {_ROOT, os.geteuid()}
    for user in sorted(users_listening(port) - trusted):
        if master_user not in (name := _name(user), str(user)):
            raise ForeignListener(
                f"port {port} of this machine is open, and belongs to the user {name}, not to you or root. "
                f"If that is the user of the master, set {MASTER_USER}={name}"
            )


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _users_in(table: Path, port: int) -> Iterator[int]:
    try:
        _, *sockets = table.read_text(encoding="ascii").splitlines()
    except OSError:
        return
    for socket in sockets:
        _, address, _, state, _, _, _, user, *_ = socket.split()
        if state == _LISTENING and int(address.rpartition(":")[2], 16) == port:
            yield int(user)
