"""Byte counters of the machine's network interfaces; in a container those of its own network namespace.

An interface is reported when there is hardware behind it (``/sys/class/net/<name>/device``), or when its name is not
one that software gives to the interfaces it makes. Hardware alone is not enough: the ``eth0`` of a container has none.
Names alone are not enough: they are only conventions. The bytes of a bond, a bridge, a VLAN or a tunnel are counted
once, at the card that carries them; the host's ends of its containers' interfaces are not counted.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import psutil

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors import MAX_ITEMS, valid_utf8

_MADE_BY_SOFTWARE = re.compile(
    r"lo\d*|dummy\d+|ifb\d+|nlmon\d+"  # of the kernel itself
    r"|.*[.@].*|vlan.*|bond\d.*|team\d.*|br\d+|mac(?:vlan|vtap|sec).*|ipvlan.*|vrf.*"  # over other interfaces
    r"|tun.*|tap.*|wg.*|tailscale.*|zt.*|sit\d+|gre\w*\d+|erspan\d+|(?:ip6?_vti|ip6tnl|ip6gre)\d+"  # tunnels
    r"|vxlan.*|geneve.*|genev_.*|ovs-.*"
    r"|veth.*|docker.*|br-.*|podman.*|nerdctl.*|lxc.*|lxd.*|incusbr.*"  # containers
    r"|virbr.*|vnet\d+|vmnet.*|vboxnet.*"  # virtual machines
    r"|cni.*|flannel.*|cali.*|cilium.*|kube-.*|nodelocaldns|weave.*|antrea-.*"  # Kubernetes
)


class InterfaceCounters(NamedTuple):
    """Bytes since the interface was created."""

    received_bytes: int
    transmitted_bytes: int


def read_counters() -> Mapping[str, InterfaceCounters]:
    """By the name of the interface."""
    counters = psutil.net_io_counters(pernic=True, nowrap=False)
    return {name: InterfaceCounters(counter.bytes_recv, counter.bytes_sent) for name, counter in counters.items()}


def is_made_by_software(interface: str) -> bool:
    """Whether the kernel, a hypervisor or a container tool gives such a name to the interfaces that it makes."""
    return _MADE_BY_SOFTWARE.fullmatch(interface) is not None


class NetworkCollector:
    """``network_interfaces``, sorted by name. Where there are too many, those with hardware are preferred."""

    name = "network"

    def __init__(
        self,
        read: Callable[[], Mapping[str, InterfaceCounters]] = read_counters,
        sys: Path = Path("/sys"),
    ) -> None:
        self._read = read
        self._class_net = sys / "class" / "net"

    def collect(self) -> pb.Heartbeat:
        counters = self._read()
        interfaces = [
            pb.NetworkInterface(interface=valid_utf8(name), **counters[name]._asdict())
            for name in sorted(self._choose(counters))
        ]
        return pb.Heartbeat(network_interfaces=interfaces)

    def _choose(self, names: Mapping[str, object]) -> list[str]:
        hardware = sorted(name for name in names if self._has_hardware(name))
        others = sorted(name for name in names if name not in hardware and not is_made_by_software(name))
        return (hardware + others)[:MAX_ITEMS]

    def _has_hardware(self, interface: str) -> bool:
        return (self._class_net / interface / "device").exists()
