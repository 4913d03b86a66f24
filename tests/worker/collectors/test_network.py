"""worker.collectors.network"""

from collections.abc import Mapping
from pathlib import Path

import pytest

from fleetpulse.worker.collectors.network import InterfaceCounters, NetworkCollector, is_made_by_software


def machine(
    sys: Path, hardware: Mapping[str, InterfaceCounters], others: Mapping[str, InterfaceCounters]
) -> NetworkCollector:
    for name in hardware:
        (sys / "class" / "net" / name / "device").mkdir(parents=True)
    return NetworkCollector(lambda: {**others, **hardware}, sys=sys)


def names(collector: NetworkCollector) -> list[str]:
    return [interface.interface for interface in collector.collect().network_interfaces]


def quiet(*interfaces: str) -> dict[str, InterfaceCounters]:
    return {interface: InterfaceCounters(0, 0) for interface in interfaces}


def test_bytes_of_each_direction_are_reported(tmp_path: Path) -> None:
    collector = machine(tmp_path, {"eth0": InterfaceCounters(received_bytes=70, transmitted_bytes=30)}, {})
    (interface,) = collector.collect().network_interfaces
    assert (interface.interface, interface.received_bytes, interface.transmitted_bytes) == ("eth0", 70, 30)


def test_unused_interface_has_zero_bytes(tmp_path: Path) -> None:
    (interface,) = machine(tmp_path, quiet("eth0"), {}).collect().network_interfaces
    assert interface.HasField("received_bytes")
    assert interface.HasField("transmitted_bytes")


def test_host_reports_its_cards_and_no_virtual_interfaces(tmp_path: Path) -> None:
    software = quiet("lo", "docker0", "br-5f1e", "veth1a2b", "bond0", "eth0.100", "wg0", "virbr0", "cali0", "tap3")
    assert names(machine(tmp_path, quiet("wlp2s0", "eth0", "eth1"), software)) == ["eth0", "eth1", "wlp2s0"]


def test_container_reports_its_virtual_interface(tmp_path: Path) -> None:
    assert names(machine(tmp_path, {}, quiet("lo", "eth0", "tunl0", "sit0"))) == ["eth0"]


def test_container_with_a_card_still_reports_its_virtual_interface(tmp_path: Path) -> None:
    assert names(machine(tmp_path, quiet("net1"), quiet("lo", "eth0"))) == ["eth0", "net1"]


def test_interface_with_hardware_is_reported_whatever_its_name(tmp_path: Path) -> None:
    assert names(machine(tmp_path, quiet("br0"), quiet("lo"))) == ["br0"]


def test_machine_without_interfaces_gives_an_empty_report(tmp_path: Path) -> None:
    assert names(machine(tmp_path, {}, quiet("lo"))) == []


def test_interfaces_with_hardware_are_preferred_when_there_are_too_many(tmp_path: Path) -> None:
    others = quiet(*(f"a{i:02}" for i in range(20)))
    reported = names(machine(tmp_path, quiet("eth0", "eth1"), others))
    assert len(reported) == 16
    assert reported == sorted(reported)
    assert {"eth0", "eth1"} <= set(reported)


def test_name_that_is_not_utf8_is_replaced(tmp_path: Path) -> None:
    assert names(machine(tmp_path, {}, quiet("et\udcffh"))) == ["et\ufffdh"]


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
    assert set(reported) <= kernel_knows - {"lo"}
    hardware = {path.parent.name for path in Path("/sys/class/net").glob("*/device")}
    assert len(reported) >= min(16, len(hardware))
