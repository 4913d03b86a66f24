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


def _process_ports() -> Iterator[int]:
    """Cycles over the ports of this test process.

    They are below the kernel's ephemeral range, and parallel test processes share none. So a free port stays free until
    a server opens it, and no client of another test connects to it.
    """
    below = max(int(_EPHEMERAL.read_text().split()[0]), _LOWEST + 8_000)
    shares = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    share = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = range(_LOWEST + share, below, shares)
    begin = random.randrange(len(ports))
    return itertools.cycle((*ports[begin:], *ports[:begin]))


_PORTS = _process_ports()


def free_port() -> int:
    """A free port of 127.0.0.1 that no other process opens by chance."""
    return next(port for port in _PORTS if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOCALHOST, port))
        except OSError:
            return False
        return True


def ports_are_closed(*ports: int) -> bool:
    """Whether no port of 127.0.0.1 accepts connections. A port may stay open for a moment after its process ended."""
    for port in ports:
        with socket.socket() as probe:
            if probe.connect_ex((LOCALHOST, port)) == 0:
                return False
    return True
