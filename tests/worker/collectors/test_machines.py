"""The collectors on recorded machines give what ``ip -s link``, ``free``, ``uptime`` and ``/proc/stat`` show there."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from fleetpulse.worker.collectors.cpu import CpuCollector, read_cpu_times
from fleetpulse.worker.collectors.memory import MemoryCollector
from fleetpulse.worker.collectors.network import NetworkCollector
from fleetpulse.worker.collectors.system import LoadCollector, UptimeCollector, read_load, seconds_since_boot
from tests.worker.collectors import recorded_machines

KIB = 1024
GIB = 1024**3


class Expected(NamedTuple):
    """What the tools of the machine show; bytes."""

    received: dict[str, int]
    """``ip -s link`` of the interfaces that count the machine's traffic once."""

    memory: tuple[int, int]
    """``free -b``: used (less ZFS's cache, as htop has it) and total; or the cgroup's working set and limit."""

    swap: tuple[int, int] | None
    uptime: float
    load: tuple[float, float, float]


MACHINES = {
    "proxmox": Expected(
        {"eno1": 987654321000},
        ((65774964 - 11300240) * KIB - 30 * GIB, 65774964 * KIB), (262144 * KIB, 8388604 * KIB),
        864000.55, (1.02, 0.90, 0.88),
    ),
    "eks": Expected(
        {"eth0": 50000000000, "eth1": 7000000000},
        ((15896316 - 11264512) * KIB, 15896316 * KIB), None, 172800.55, (0.40, 0.35, 0.30),
    ),
    "gke": Expected(
        {"eth0": 30000000000}, ((16382100 - 12582912) * KIB, 16382100 * KIB), None, 86400.55, (0.20, 0.22, 0.25),
    ),
    "openstack": Expected(
        {"ens3f0": 4000000000000, "ens3f1": 1000000000000},
        ((527931448 - 104857600) * KIB, 527931448 * KIB), (0, 16777212 * KIB), 2592000.55, (12.50, 11.00, 10.75),
    ),
    "azure": Expected(
        {"eth0": 88000000000}, ((32886808 - 29360128) * KIB, 32886808 * KIB), None, 604800.55, (0.05, 0.07, 0.08),
    ),
    "zfs": Expected(
        {"enp2s0": 1000000000},
        ((65865456 - 9437184) * KIB - (42949672960 - 2107694592), 65865456 * KIB), (0, 2097148 * KIB),
        345600.55, (0.70, 0.60, 0.50),
    ),
    "lxc": Expected(
        {"eth0": 300000000}, ((4194304 - 3774873) * KIB, 4 * GIB), (0, 524288 * KIB), 43200.55, (0.10, 0.12, 0.09),
    ),
    "raspberry": Expected(
        {"eth0": 0, "wlan0": 450000000}, ((3884380 - 3145728) * KIB, 3884380 * KIB), (0, 102396 * KIB),
        5400.55, (0.15, 0.20, 0.18),
    ),
    "gpu8": Expected(
        {"ens1f0np0": 60000000000000, "ens1f1np1": 0, **{f"ib{port}": (port + 1) * 10**13 for port in range(4)}},
        ((2113535000 - 1468006400) * KIB, 2113535000 * KIB), None, 5184000.55, (96.10, 95.00, 94.20),
    ),
    "laptop": Expected(
        {"wlp0s20f3": 9000000000, "enx9a1b2c3d4e5f": 70000000},
        ((16116956 - 8388608) * KIB, 16116956 * KIB), (1048576 * KIB, 16777212 * KIB), 30000.55, (1.50, 1.20, 1.10),
    ),
    "cgroup1": Expected(
        {"eth0": 5000000, "eth1": 3000000},
        (1610612736 - 805306368, 2 * GIB), (1717986918 - 1610612736, GIB), 950400.55, (2.00, 2.10, 2.20),
    ),
    "cgroup2": Expected(
        {"eth0": 900000000}, (943718400 - 629145600, GIB), None, 172800.55, (6.00, 6.10, 6.20),
    ),
    "daemonset": Expected(
        {"ens5": 4000000000}, ((15896316 - 11264512) * KIB, 15896316 * KIB), None, 259200.55, (0.60, 0.55, 0.50),
    ),
}  # fmt: skip


def test_every_recorded_machine_has_its_row() -> None:
    assert set(recorded_machines.NAMES) == set(MACHINES)


@pytest.mark.parametrize("name", MACHINES)
def test_readings_of_a_recorded_machine(name: str, tmp_path: Path) -> None:
    machine, expected = recorded_machines.build(name, tmp_path), MACHINES[name]
    interfaces = NetworkCollector(machine.proc, machine.sys).collect().network_interfaces
    assert {item.interface: item.received_bytes for item in interfaces} == expected.received
    memory = MemoryCollector(machine.proc, machine.sys).collect().memory
    assert (memory.used_bytes, memory.size_bytes) == expected.memory
    swap = (memory.swap_used_bytes, memory.swap_size_bytes) if memory.HasField("swap_size_bytes") else None
    assert swap == expected.swap
    uptime = UptimeCollector(partial(seconds_since_boot, machine.proc)).collect().uptime_seconds
    assert uptime == pytest.approx(expected.uptime)
    load = LoadCollector(partial(read_load, machine.proc)).collect().load
    assert (load.load1, load.load5, load.load15) == expected.load


def test_usage_of_a_recorded_machine_is_the_share_of_its_times(tmp_path: Path) -> None:
    machine = recorded_machines.build("eks", tmp_path)
    collector = CpuCollector(partial(read_cpu_times, machine.proc))
    # 100 ticks a second: user 300, nice 100, system 0, idle 500, iowait 100.
    before = [int(word) for word in (machine.proc / "stat").read_text().splitlines()[0].split()[1:]]
    after = [a + b for a, b in zip(before, [300, 100, 0, 500, 100, 0, 0, 0, 0, 0], strict=True)]
    (machine.proc / "stat").write_text("cpu  " + " ".join(map(str, after)) + "\n")
    assert collector.collect().cpu.usage_percent == pytest.approx(40.0)
