"""Ports for the servers that tests start."""

import itertools
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

LOCALHOST = "127.0.0.1"

_LOWEST = 12_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def _own_ports() -> Iterator[int]:
    """The ports of this test process, again and again.

    The kernel gives none of them to whoever asks for any port, and test processes side by side share none. So what is
    free when it is asked for is still free when a server opens it, and nobody else's client knocks there.
    """
    below = max(int(_EPHEMERAL.read_text().split()[0]), _LOWEST + 8_000)
    shares = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    share = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = range(_LOWEST + share, below, shares)
    begin = random.randrange(len(ports))
    return itertools.cycle((*ports[begin:], *ports[:begin]))


_PORTS = _own_ports()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and that nobody takes by chance."""
    return next(port for port in _PORTS if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOCALHOST, port))
        except OSError:
            return False
        return True


def ports_are_closed(*ports: int) -> bool:
    """Whether nothing on 127.0.0.1 accepts connections on them. A process that ended may take a moment to let go."""
    for port in ports:
        with socket.socket() as probe:
            if probe.connect_ex((LOCALHOST, port)) == 0:
                return False
    return True
