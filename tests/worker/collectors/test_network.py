"""worker.collectors.network"""

from pathlib import Path

import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors import COLLECTOR_DECIDES, NamePatterns
from fleetpulse.worker.collectors.network import (
    InterfaceCounters,
    NetworkCollector,
    is_made_by_software,
    parse_net_dev,
    read_facts,
)

HEAD = "Inter-| Receive | Transmit\n face |bytes packets|bytes\n"


class Machine:
    """Its ``/proc/net/dev`` and ``/sys/class/net``, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.sys = folder / "proc", folder / "sys"
        self.bytes: dict[str, tuple[int, int]] = {}

    def add(self, *names: str, hardware: bool = False, received: int = 0, transmitted: int = 0) -> "Machine":
        for name in names:
            self.bytes[name] = received, transmitted
            folder = self.sys / "class" / "net" / name
            (folder / "device" if hardware else folder).mkdir(parents=True)
        return self

    def write(self, name: str, **files: object) -> "Machine":
        for file, content in files.items():
            (self.sys / "class" / "net" / name / file).write_text(f"{content}\n")
        return self

    def collector(self, patterns: NamePatterns = COLLECTOR_DECIDES) -> NetworkCollector:
        self.show()
        return NetworkCollector(self.proc, self.sys, patterns, clock=lambda: 0.0)

    def show(self) -> None:
        (self.proc / "net").mkdir(parents=True, exist_ok=True)
        rows = (f"{name}: {rx} 0 0 0 0 0 0 0 {tx} 0 0 0 0 0 0 0\n" for name, (rx, tx) in self.bytes.items())
        (self.proc / "net" / "dev").write_text(HEAD + "".join(rows), encoding="utf-8", errors="surrogateescape")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def names(collector: NetworkCollector) -> list[str]:
    return [interface.interface for interface in collector.collect().network_interfaces]


def test_bytes_of_each_direction_are_reported(machine: Machine) -> None:
    (interface,) = (
        machine.add("eth0", hardware=True, received=70, transmitted=30).collector().collect().network_interfaces
    )
    assert (interface.interface, interface.received_bytes, interface.transmitted_bytes) == ("eth0", 70, 30)


def test_unused_interface_has_zero_bytes(machine: Machine) -> None:
    (interface,) = machine.add("eth0", hardware=True).collector().collect().network_interfaces
    assert interface.HasField("received_bytes")
    assert interface.HasField("transmitted_bytes")


def test_host_reports_its_cards_and_no_virtual_interfaces(machine: Machine) -> None:
    software = ("lo", "docker0", "br-5f1e", "veth1a2b", "bond0", "eth0.100", "wg0", "virbr0", "cali0", "tap3", "any")
    machine.add("wlp2s0", "eth0", "eth1", hardware=True).add(*software)
    assert names(machine.collector()) == ["eth0", "eth1", "wlp2s0"]


def test_container_reports_its_virtual_interface(machine: Machine) -> None:
    assert names(machine.add("lo", "eth0", "tunl0", "sit0").collector()) == ["eth0"]


def test_container_with_a_card_still_reports_the_interface_of_its_default_route(machine: Machine) -> None:
    machine.add("net1", hardware=True).add("lo", "eth0", "eni1a2b").write("eth0", ifindex=2, iflink=9)
    machine.write("eni1a2b", ifindex=3, iflink=2)
    collector = machine.collector()
    (machine.proc / "net" / "route").write_text(
        "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
        "eth0 00000000 0101A8C0 0003 0 0 0 00000000 0 0 0\neni1a2b 0101A8C0 00000000 0005 0 0 0 FFFFFFFF 0 0 0\n"
    )
    assert names(collector) == ["eth0", "net1"]


def test_default_route_of_ipv6_counts_too(machine: Machine) -> None:
    machine.add("net1", hardware=True).add("lo", "eth0").write("eth0", ifindex=2, iflink=9)
    collector = machine.collector()
    zeros, gateway = "0" * 32, "fe80" + "0" * 27 + "1"
    (machine.proc / "net" / "ipv6_route").write_text(
        f"{zeros} 00 {zeros} 00 {gateway} 00000400 00000001 00000000 00000003     eth0\n"
        f"{zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200       lo\n"
    )
    assert names(collector) == ["eth0", "net1"]


def test_rootless_container_reports_the_tap_of_its_default_route(machine: Machine) -> None:
    collector = machine.add("lo", "tap0").write("tap0", tun_flags="0x1002").collector()
    assert names(collector) == []
    (machine.proc / "net" / "route").write_text("tap0 00000000 0202000A 0003 0 0 0 00000000 0 0 0\n")
    assert names(machine.collector()) == ["tap0"]


def test_interface_with_hardware_is_reported_whatever_its_name(machine: Machine) -> None:
    assert names(machine.add("br0", hardware=True).add("lo").collector()) == ["br0"]


def test_port_of_a_switch_chip_is_counted_at_its_conduit(machine: Machine) -> None:
    machine.add("eth0", "lan1", "lan2", hardware=True)
    machine.write("lan1", uevent="DEVTYPE=dsa").write("lan2", uevent="DEVTYPE=dsa")
    assert names(machine.collector()) == ["eth0"]


def test_guest_end_of_xen_is_left_out(machine: Machine) -> None:
    machine.add("eth0", "vif1.0", hardware=True)
    (machine.sys / "class/net/vif1.0/device/subsystem").symlink_to("../../../bus/xen-backend")
    assert names(machine.collector()) == ["eth0"]


def test_virtual_function_is_counted_where_its_card_is_not(machine: Machine) -> None:
    """A container that was given the function sees the card in ``/sys``, and not the card's interface."""
    machine.add("net1", hardware=True)
    (machine.sys / "class/net/net1/device/physfn/net").mkdir(parents=True)
    assert names(machine.collector()) == ["net1"]


def test_machine_without_interfaces_gives_an_empty_report(machine: Machine) -> None:
    assert names(machine.add("lo").collector()) == []


def test_interfaces_with_most_traffic_are_reported_when_there_are_too_many(machine: Machine) -> None:
    machine.add(*(f"a{i:02}" for i in range(70)), hardware=True).add("zz", hardware=True, received=5)
    collector = machine.collector()
    reported = names(collector)
    assert len(reported) == 64
    assert list(collector.collect().left_out) == [pb.LeftOut(collector="network", count=7)]
    assert reported == sorted(reported)
    assert "zz" in reported


def test_patterns_decide_before_the_collector(machine: Machine) -> None:
    machine.add("eth0", "eth1", hardware=True).add("wg0", "lo")
    assert names(machine.collector(NamePatterns(exclude=["eth1"]))) == ["eth0"]
    assert names(machine.collector(NamePatterns(include=["wg*", "eth1"]))) == ["eth1", "wg0"]
    assert names(machine.collector(NamePatterns(include=["*"], exclude=["*0"]))) == ["eth1", "lo"]


def test_enslaving_is_seen_within_a_minute(machine: Machine) -> None:
    now = [0.0]
    machine.add("eth0", "enP1", hardware=True).show()
    collector = NetworkCollector(machine.proc, machine.sys, clock=lambda: now[0])
    assert names(collector) == ["enP1", "eth0"]
    (machine.sys / "class/net/enP1/master").symlink_to("../eth0")
    now[0] = 61.0
    assert names(collector) == ["eth0"]
    machine.add("eth7", hardware=True).show()
    assert names(collector) == ["eth0", "eth7"]


def test_name_that_is_not_utf8_is_replaced(machine: Machine) -> None:
    assert names(machine.add("et\udcffh").collector()) == ["et\\xffh"]


def test_odd_lines_of_the_kernels_table_are_skipped() -> None:
    lines = (
        "eth0:70 1 0 0 0 0 0 0 30 1 0 0",
        " eth1: 1 2",
        " eth2: x 1 0 0 0 0 0 0 30 1",
        "  a:b: 5 0 0 0 0 0 0 0 6 0",
    )
    text = HEAD + "\n".join(lines)
    assert parse_net_dev(text) == {"eth0": InterfaceCounters(70, 30), "a:b": InterfaceCounters(5, 6)}


@pytest.mark.parametrize(
    "name", ["eth0", "eno1", "enp3s0f1np1", "ens5", "wlan0", "wlp2s0", "ib0", "net1", "venet0", "lowpan0"]
)
def test_names_of_physical_interfaces(name: str) -> None:
    assert not is_made_by_software(name)


@pytest.mark.parametrize(
    "name",
    [
        *("lo", "lo0", "dummy0", "ifb1", "bond0", "team0", "br0", "eth0.100", "vlan7", "macvtap0", "ipvlan1"),
        *("tun0", "tunl0", "tap9", "wg0", "tailscale0", "sit0", "gre0", "gretap0", "ip6tnl0", "ip_vti0", "ip6_vti0"),
        *(
            "vxlan.calico",
            "vxlan100",
            "genev_sys_6081",
            "ovs-system",
            "veth12ab",
            "docker0",
            "docker_gwbridge",
            "br-0123",
        ),
        *("podman1", "lxcbr0", "lxdbr0", "virbr0", "virbr0-nic", "vnet12", "cni0", "cni-podman0", "flannel.1"),
        *("cali12ab", "cilium_host", "lxc_health", "kube-ipvs0", "nodelocaldns", "weave", "antrea-gw0"),
    ],
)
def test_names_of_virtual_interfaces(name: str) -> None:
    assert is_made_by_software(name)


@pytest.mark.skipif(not Path("/proc/net/dev").exists(), reason="needs /proc/net/dev")
def test_interfaces_of_this_machine() -> None:
    kernel_knows = {line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]}
    reported = names(NetworkCollector())
    assert reported
    assert set(reported) <= kernel_knows - {"lo"}


@pytest.mark.skipif(not Path("/sys/class/net/lo").exists(), reason="needs /sys/class/net")
def test_facts_of_this_machine() -> None:
    facts = read_facts(Path("/sys/class/net"), ["lo", "none"])
    assert facts["lo"].is_loopback
    assert not facts["none"].has_hardware
