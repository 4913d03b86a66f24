"""Who a client is, where clients are counted one by one."""

import ipaddress
from functools import lru_cache

_NETWORK_BITS = 64
"""Of an IPv6 address: whoever has one address has all of its network."""


class Clients:
    """``limits_loopback``: whether clients of this machine, which may be a proxy for many, are counted as well."""

    def __init__(self, *, limits_loopback: bool = False) -> None:
        self._limits_loopback = limits_loopback

    def name(self, address: str) -> str | None:
        """Under which name to count the client at an address; ``None``: it is not counted."""
        return _name(address, self._limits_loopback)


@lru_cache(1024)
def _name(address: str, limits_loopback: bool) -> str | None:
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
