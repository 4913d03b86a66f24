"""Workers without a certificate: those of the master's own user and root, or of a trusted network. In grpc's loop."""

import asyncio
import ipaddress
from collections.abc import Callable
from urllib.parse import unquote

from fleetpulse.master.access.peers import Endpoint, Peers
from fleetpulse.master.addresses import Address
from fleetpulse.master.errors import ForeignUser

_LOOPBACK = {4: "127.0.0.1", 6: "::1"}

_ADVICE = (
    "without a certificate this master serves only workers of its own user and of root: run this worker as one of "
    "them, or let it join with a certificate (`fleetpulse ca init`, then `fleetpulse ca join-token`)"
)


TASKS_ADVICE = (
    "this comes from the network of this machine's tasks, which is never trusted: a worker there needs a certificate "
    "(`fleetpulse ca init`, then `fleetpulse ca join-token`)"
)
"""For a worker in a task's container, where the network is trusted."""


class LocalWorkers:
    """Asks the system with every call whose the connection is: 10 microseconds. A port may soon be another user's."""

    def __init__(self, check: Peers, address: Address, is_enforced: Callable[[], bool], advice: str = _ADVICE) -> None:
        """``address`` is where the port listens. ``is_enforced`` is called in grpc's loop; if not, everybody passes."""
        self.check = check
        self._advice = advice
        self._address = address
        self._is_enforced = is_enforced

    async def refusal(self, peer: str) -> ForeignUser | None:
        """Returns why a client may not call, by grpc's name of its end: ``ipv4:127.0.0.1:40000``."""
        if not self._is_enforced():
            return None
        ends = _ends(peer, self._address)
        if ends is None:
            return ForeignUser(self._advice)
        if self.check.is_slow:
            is_own = await asyncio.get_running_loop().run_in_executor(None, self.check.is_own, *ends)
        else:
            is_own = self.check.is_own(*ends)
        return None if is_own else ForeignUser(self._advice)


def _ends(peer: str, address: Address) -> tuple[Endpoint, Endpoint] | None:
    """Returns the client's end and the master's; ``None`` for a name that is no address and port."""
    kind, _, text = unquote(peer).partition(":")
    host, _, port = text.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdigit():
        return None
    client = Endpoint(host.strip("[]"), int(port))
    try:
        version = ipaddress.ip_address(client.host.partition("%")[0]).version
        is_named = ipaddress.ip_address(address.host).version == version
    except ValueError:  # "localhost", which is both loopback addresses
        is_named = False
        version = 6 if kind == "ipv6" else 4
    return client, Endpoint(address.host if is_named else _LOOPBACK[version], address.port)
