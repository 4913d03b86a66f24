"""Byte counters of the machine's network interfaces; in a container those of its own network namespace.

The interfaces are chosen so that their sum counts every byte once. ``/sys/class/net`` says how they stand upon each
other, whatever their names are; names decide only what it cannot say.

* With hardware (``device``), an interface is reported. Not so the lower half of one that counts for both (Azure's and
  virtio's failover: its ``master`` has hardware too), a virtual function or a representor of a card that is there, a
  port of a switch chip (DSA), Xen's end of a guest's interface, and a monitor of a wireless card.
* Without hardware, but upon other interfaces (``lower_*``: bridges, bonds, teams, VLANs), it is not.
* Without hardware and upon nothing, it is reported where no interface has hardware, as in most containers, unless it
  is a tunnel or has a name that software gives. Beside hardware it is reported only if its other end is elsewhere
  (``iflink``) and the default route leads through it: the first interface of a container that was given a card too.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import psutil

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.cleaning import make
from fleetpulse.worker.collectors import (
    COLLECTOR_DECIDES,
    MAX_ITEMS,
    PROC,
    SYS,
    NamePatterns,
    left_out,
    read_line,
    read_number,
    read_text,
)

_MADE_BY_SOFTWARE = re.compile(
    r"lo\d*|dummy\d+|ifb\d+|nlmon\d+"  # of the kernel itself
    r"|.*[.@].*|vlan.*|bond\d.*|team\d.*|br\d+|mac(?:vlan|vtap|sec).*|ipvlan.*|vrf.*"  # over other interfaces
    r"|tun.*|tap.*|wg.*|tailscale.*|zt.*|sit\d+|gre\w*\d+|erspan\d+|(?:ip6?_vti|ip6tnl|ip6gre)\d+"  # tunnels
    r"|vxlan.*|geneve.*|genev_.*|ovs-.*"
    r"|veth.*|docker.*|br-.*|podman.*|nerdctl.*|lxc.*|lxd.*|incusbr.*"  # containers
    r"|virbr.*|vnet\d+|vmnet.*|vboxnet.*"  # virtual machines
    r"|cni.*|flannel.*|cali.*|cilium.*|kube-.*|nodelocaldns|weave.*|antrea-.*"  # Kubernetes
)

_LOOPBACK = 772
_TUNNELS = frozenset({768, 769, 776, 778, 823, 65534})
"""``type``, as in linux/if_arp.h: IPIP, IP6IP6, SIT, GRE, GRE over IPv6, and what has no link layer."""

_MONITORS = frozenset({801, 802, 803})
_TUNNEL_KINDS = frozenset({"vxlan", "geneve", "wireguard", "bareudp", "gtp"})
"""``DEVTYPE`` in ``uevent``."""

_REPRESENTOR = re.compile(r"(c\d+)?pf\d+(vf|sf)\d+")
"""``phys_port_name`` of the end of a virtual function in its card's switch (Documentation/networking/switchdev.rst)."""

_FACTS_SECONDS = 60.0
"""How long what ``/sys`` says is good while the same interfaces are there: a node has hundreds."""


class InterfaceCounters(NamedTuple):
    """Bytes since the interface was created."""

    received_bytes: int
    transmitted_bytes: int


class InterfaceFacts(NamedTuple):
    """What ``/sys/class/net`` says of an interface. A name stands for nothing here."""

    has_hardware: bool = False
    is_part_of_card: bool = False
    """Its card, or the switch that it is a port of, has an interface here that counts for it, or it is a guest's."""

    master: str | None = None
    is_upon_others: bool = False
    is_bridge: bool = False
    """Of whatever kind, also before it has a port."""

    is_tunnel: bool = False
    """Its packets leave in those of another interface."""

    is_loopback: bool = False
    ends_elsewhere: bool = False
    """Its other end, or what it stands upon, is in another network namespace."""


def parse_net_dev(text: str) -> dict[str, InterfaceCounters]:
    """The table of ``/proc/net/dev``. Lines that are none of an interface are skipped."""
    counters = {}
    for line in text.splitlines():
        name, colon, numbers = line.rpartition(":")
        columns = numbers.split()
        if colon and len(columns) > 8 and columns[0].isdecimal() and columns[8].isdecimal():
            counters[name.strip()] = InterfaceCounters(int(columns[0]), int(columns[8]))
    return counters


def read_counters(proc: Path) -> Mapping[str, InterfaceCounters]:
    """By the name of the interface. Raises ``OSError``."""
    try:
        return parse_net_dev(read_text(proc / "self" / "net" / "dev"))
    except FileNotFoundError:
        if (proc / "net" / "dev").exists():
            return parse_net_dev(read_text(proc / "net" / "dev"))
        if proc == PROC and not psutil.LINUX:
            counters = psutil.net_io_counters(pernic=True, nowrap=False)
            return {
                name: InterfaceCounters(counter.bytes_recv, counter.bytes_sent) for name, counter in counters.items()
            }
        raise


def is_made_by_software(interface: str) -> bool:
    """Whether the kernel, a hypervisor or a container tool gives such a name to the interfaces that it makes."""
    return _MADE_BY_SOFTWARE.fullmatch(interface) is not None


def read_facts(class_net: Path, names: Iterable[str]) -> dict[str, InterfaceFacts]:
    """Of each interface; those that ``/sys`` does not show have no facts."""
    names = set(names)
    return {name: _interface_facts(class_net / name, names) for name in names}


def _interface_facts(folder: Path, names: set[str]) -> InterfaceFacts:
    try:
        entries = {path.name for path in folder.iterdir()}
    except OSError:
        return InterfaceFacts()
    uevent = dict(line.partition("=")[::2] for line in (_read_all(folder / "uevent")).splitlines())
    kind = uevent.get("DEVTYPE", "")
    number = read_number(folder / "type")
    index, other_end = read_number(folder / "ifindex"), read_number(folder / "iflink")
    has_lower = any(entry.startswith("lower_") for entry in entries)
    is_macvlan = kind in {"macvlan", "macvtap"}
    return InterfaceFacts(
        has_hardware="device" in entries,
        is_part_of_card="device" in entries and (kind == "dsa" or number in _MONITORS or _is_part(folder, names)),
        master=_link_name(folder / "master") if "master" in entries else None,
        is_upon_others=has_lower,
        is_bridge="bridge" in entries or "bonding" in entries or kind in {"bridge", "bond"},
        is_tunnel=kind in _TUNNEL_KINDS or number in _TUNNELS or "tun_flags" in entries,
        is_loopback=number == _LOOPBACK,
        ends_elsewhere=not has_lower and (is_macvlan or (index is not None and other_end not in (None, 0, index))),
    )


def _is_part(folder: Path, names: set[str]) -> bool:
    """Whether it is a virtual function, a representor or a guest's interface."""
    if _link_name(folder / "device" / "subsystem") == "xen-backend":
        return True
    if _REPRESENTOR.fullmatch(read_line(folder / "phys_port_name") or ""):
        return True
    try:
        # Empty in a container that was given the function, and not the card.
        return any(path.name in names for path in (folder / "device" / "physfn" / "net").iterdir())
    except OSError:
        return False


def _link_name(link: Path) -> str | None:
    try:
        return link.readlink().name
    except OSError:
        return None


def _read_all(path: Path) -> str:
    try:
        return read_text(path)
    except OSError:
        return ""


def default_route_interfaces(proc: Path) -> set[str]:
    """The interfaces through which a default route of IPv4 or IPv6 leads."""
    found = set()
    for table, columns in (("route", 8), ("ipv6_route", 10)):
        for line in _read_all(proc / "net" / table).splitlines():
            words = line.split()
            if len(words) < columns:
                continue
            # IPv4: interface, destination, ..., mask at 7. IPv6: destination, prefix length, ..., interface at the end.
            name, zeros = (words[0], (words[1], words[7])) if table == "route" else (words[-1], (words[0], words[1]))
            if not any(word.strip("0") for word in zeros):
                found.add(name)
    return found - {"lo"}


def choose_interfaces(facts: Mapping[str, InterfaceFacts], default_routes: set[str]) -> set[str]:
    """Those whose sum counts the machine's traffic once. Pure."""
    physical = {
        name
        for name, fact in facts.items()
        if fact.has_hardware
        and not fact.is_part_of_card
        and not (fact.master in facts and facts[str(fact.master)].has_hardware)
    }
    bases = {
        name: fact
        for name, fact in facts.items()
        if not (fact.has_hardware or fact.is_upon_others or fact.is_bridge or fact.is_loopback)
    }
    if physical:
        return physical | {
            name
            for name, fact in bases.items()
            if name in default_routes and fact.ends_elsewhere and fact.master is None and not fact.is_tunnel
        }
    return {
        name
        for name, fact in bases.items()
        if name in default_routes
        or (
            not (fact.is_tunnel or is_made_by_software(name)) and (fact.master is None or fact.master in default_routes)
        )
    }


class NetworkCollector:
    """``network_interfaces``, sorted by name. Where there are too many, those with the most traffic are reported."""

    name = "network"

    def __init__(
        self,
        proc: Path = PROC,
        sys: Path = SYS,
        patterns: NamePatterns = COLLECTOR_DECIDES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock`` runs in seconds."""
        self._proc, self._class_net, self._patterns, self._clock = proc, sys / "class" / "net", patterns, clock
        self._known: frozenset[str] = frozenset()
        self._chosen: set[str] = set()
        self._chosen_at = 0.0

    def collect(self) -> pb.Heartbeat:
        """Raises ``OSError`` where ``/proc`` does not show the interfaces."""
        counters = read_counters(self._proc)
        wanted = self._choose(frozenset(counters))
        most = sorted(wanted, key=lambda name: (-sum(counters[name]), name))[:MAX_ITEMS]
        interfaces = [make(pb.NetworkInterface, interface=name, **counters[name]._asdict()) for name in sorted(most)]
        return pb.Heartbeat(network_interfaces=interfaces, left_out=left_out(self.name, len(wanted) - len(most)))

    def _choose(self, names: frozenset[str]) -> set[str]:
        now = self._clock()
        if names != self._known or now - self._chosen_at >= _FACTS_SECONDS:
            chosen = choose_interfaces(read_facts(self._class_net, names), default_route_interfaces(self._proc))
            decisions = {name: self._patterns.decide(name) for name in names}
            self._chosen = {name for name in names if (name in chosen if (said := decisions[name]) is None else said)}
            self._known, self._chosen_at = names, now
        return self._chosen
