"""Network addresses: where the master listens, and the keys that clients are counted under."""

import ipaddress
import re
import socket
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from fleetpulse.master.errors import ConfigError
from fleetpulse.proto.listeners import is_loopback as is_loopback  # noqa: PLC0414 - the place where the master looks for it

LOOPBACK = "127.0.0.1"
LOOPBACK_6 = "::1"

_TRIES = 20
"""To find a port that is free on both loopbacks."""

_NETWORK_BITS = 64
"""Of an IPv6 address: a client with one address has all of its network."""


class Address(NamedTuple):
    """Where to listen. ``str`` of it is understood by gunicorn, grpc and browsers."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(name: str, text: str) -> Address:
    """Parses ``:8080``, ``8080``, ``host:8080`` or ``[::1]:8080``. Port 0 means any free one.

    The default host is 127.0.0.1. Raises ``ConfigError`` that names the setting.
    """
    host, colon, port = text.strip().rpartition(":")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ConfigError(f"{name}={text!r}: expected a port as 8080, :8080 or host:8080, from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(f"{name}={text!r}: write an IPv6 address in brackets, as [::1]:8080")
    if colon and host and not re.fullmatch(r"[A-Za-z0-9.:_%-]+", host):
        raise ConfigError(f"{name}={text!r}: {host!r} is not a host")
    return Address(host or LOOPBACK, int(port))


def claim_port(name: str, address: Address) -> Address:
    """Returns the address with a port that is free now, on both loopbacks where the master listens on both.

    Called before any process is started, so that a port in use is one clear line and not a restart loop. Raises
    ``ConfigError`` when the given port is not free.
    """
    for tries_left in reversed(range(_TRIES if address.port == 0 else 1)):
        port, tried = address.port, address
        try:
            for tried in listen_addresses(address):
                port = _bind(tried._replace(port=port))
        except OSError as error:
            if not tries_left:
                raise ConfigError(f"{name}: cannot listen on {tried}: {error.strerror or error}") from error
        except UnicodeError as error:
            raise ConfigError(f"{name}: {address.host!r} is not a host: {error}") from error
        else:
            return Address(address.host, port)
    raise AssertionError


def _bind(address: Address) -> int:
    family, kind, protocol, _, target = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(target)
        probe.listen()
        return int(probe.getsockname()[1])


def listen_addresses(address: Address) -> tuple[Address, ...]:
    """Returns where to listen: on both loopbacks for 127.0.0.1 and ``localhost``, else at the address.

    Otherwise another user of this machine could take ``[::1]``, which is ``localhost`` too.
    """
    if address.host not in (LOOPBACK, "localhost"):
        return (address,)
    hosts = (LOOPBACK, LOOPBACK_6) if _has_ipv6_loopback() else (LOOPBACK,)
    return tuple(Address(host, address.port) for host in hosts)


def _has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind((LOOPBACK_6, 0))
    except OSError:
        return False
    return True


def host_of_peer(peer: str) -> str:
    """Returns the host in a gRPC peer: ``ipv4:127.0.0.1:40000``, ``ipv6:%5B::1%5D:40000``; another peer as it is."""
    kind, _, address = unquote(peer).partition(":")
    return address.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else peer


class Clients:
    """``limits_loopback``: whether clients of this machine, which may be a proxy for many, are counted as well."""

    def __init__(self, *, limits_loopback: bool = False) -> None:
        self._limits_loopback = limits_loopback

    def name(self, address: str) -> str | None:
        """Returns the key that the client is counted under; ``None`` for one that is not counted."""
        return _client_name(address, self._limits_loopback)


@lru_cache(1024)
def _client_name(address: str, limits_loopback: bool) -> str | None:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address if limits_loopback else None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if parsed.is_loopback and not limits_loopback:
        return None
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, _NETWORK_BITS), strict=False))
    return str(parsed)
