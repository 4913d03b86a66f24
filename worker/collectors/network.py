"""Byte counters of the machine's network interfaces; in a container those of its own network namespace.

The rule: an interface is reported when there is hardware behind it (``/sys/class/net/<name>/device``), or when its name
is not one that software gives to the interfaces it makes. Hardware alone will not do: the ``eth0`` of a container has
none, although it is all that the container has. Names alone will not do: they are habits. So the bytes of a bond, a
bridge, a VLAN or a tunnel are counted once, at the card that carries them, and the near ends of the containers on this
machine are not counted at all.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import psutil

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors.base import MAX_ITEMS, wire_text

_MADE_BY_SOFTWARE = re.compile(
    r"lo\d*|dummy\d+|ifb\d+|nlmon\d+"  # of the kernel itself
    r"|.*[.@].*|vlan.*|bond\d.*|team\d.*|br\d+|mac(?:vlan|vtap|sec).*|ipvlan.*|vrf.*"  # over other interfaces
    r"|tun.*|tap.*|wg.*|tailscale.*|zt.*|sit\d+|gre\w*\d+|erspan\d+|(?:ip6?_vti|ip6tnl|ip6gre)\d+"  # tunnels
    r"|vxlan.*|geneve.*|genev_.*|ovs-.*"
    r"|veth.*|docker.*|br-.*|podman.*|nerdctl.*|lxc.*|lxd.*|incusbr.*"  # containers
    r"|virbr.*|vnet\d+|vmnet.*|vboxnet.*"  # virtual machines
    r"|cni.*|flannel.*|cali.*|cilium.*|kube-.*|nodelocaldns|weave.*|antrea-.*"  # Kubernetes
)


class InterfaceCounters(Protocol):
    """Bytes, as ``psutil.net_io_counters(pernic=True)`` gives them for each interface."""

    @property
    def bytes_recv(self) -> int: ...
    @property
    def bytes_sent(self) -> int: ...


def read_counters() -> Mapping[str, InterfaceCounters]:
    """The kernel's own counters, which begin again at 0 when an interface is made anew."""
    return psutil.net_io_counters(pernic=True, nowrap=False)


def is_made_by_software(interface: str) -> bool:
    """Whether ``interface`` is a name that the kernel, a hypervisor or a container tool gives to what it makes."""
    return _MADE_BY_SOFTWARE.fullmatch(interface) is not None


class NetworkCollector:
    """``network_interfaces``, sorted by name. Those with hardware go first where there are too many to report."""

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
        return pb.Heartbeat(
            network_interfaces=[
                pb.NetworkInterface(
                    interface=wire_text(name),
                    received_bytes=counters[name].bytes_recv,
                    transmitted_bytes=counters[name].bytes_sent,
                )
                for name in sorted(self._choose(counters))
            ]
        )

    def _choose(self, names: Mapping[str, object]) -> list[str]:
        hardware = sorted(name for name in names if self._has_hardware(name))
        others = sorted(name for name in names if name not in hardware and not is_made_by_software(name))
        return (hardware + others)[:MAX_ITEMS]

    def _has_hardware(self, interface: str) -> bool:
        return (self._class_net / interface / "device").exists()
