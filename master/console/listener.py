"""Whose program listens on a port of this machine, as Linux tells everybody."""

from collections.abc import Iterator, Sequence
from pathlib import Path

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENS = "0A"


def users_listening(port: int, tables: Sequence[Path] = _TABLES) -> frozenset[int]:
    """The user ids of those who listen on this TCP port, at whatever address; none where the system does not tell."""
    return frozenset(user for table in tables for user in _users_in(table, port))


def _users_in(table: Path, port: int) -> Iterator[int]:
    try:
        _, *sockets = table.read_text(encoding="ascii").splitlines()
    except OSError:
        return
    for socket in sockets:
        _, address, _, state, _, _, _, user, *_ = socket.split()
        if state == _LISTENS and int(address.rpartition(":")[2], 16) == port:
            yield int(user)
