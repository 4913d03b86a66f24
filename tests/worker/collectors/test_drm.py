"""worker.collectors.drm"""

from collections.abc import Mapping
from pathlib import Path

import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors.drm import DrmGpus
from fleetpulse.worker.collectors.gpu import GpuCollector
from tests.worker.collectors.fake_nvml import FakeGpu, FakeNvml

GIB = 1024**3
MI300X = {
    "vendor": "0x1002", "device": "0x74a1", "unique_id": "3f2b1a0c9d8e7f65", "product_name": "AMD Instinct MI300X",
    "gpu_busy_percent": "83", "mem_info_vram_total": str(192 * GIB), "mem_info_vram_used": str(150 * GIB),
    "hwmon/hwmon4/temp1_input": "61000", "hwmon/hwmon4/power1_average": "512000000",
    "hwmon/hwmon4/power1_cap": "750000000", "hwmon/hwmon4/freq1_input": "2100000000",
    "hwmon/hwmon4/freq2_input": "1300000000",
}  # fmt: skip
ARC = {
    "vendor": "0x8086", "device": "0x56a0", "hwmon/hwmon2/temp1_input": "44000",
    "hwmon/hwmon2/energy1_input": "1000000000", "hwmon/hwmon2/power1_max": "190000000",
    "tile0/gt0/freq0/act_freq": "2400",
}  # fmt: skip
ASPEED = {"vendor": "0x1a03", "device": "0x2000"}
NVIDIA = {"vendor": "0x10de", "device": "0x2330"}


class Machine:
    """``/sys`` with cards, and the time."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.now = 100.0
        self.gpus = DrmGpus(root, lambda: self.now)

    def add(self, card: str, address: str, files: Mapping[str, str]) -> None:
        self.write(address, files)
        (self._root / "class/drm" / card).mkdir(parents=True)
        (self._root / "class/drm" / card / "device").symlink_to(f"../../../devices/{address}")

    def write(self, address: str, files: Mapping[str, str]) -> None:
        for name, content in files.items():
            path = self._root / "devices" / address / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content + "\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_gpu_of_amd_is_read_as_rocm_smi_shows_it(machine: Machine) -> None:
    machine.add("card1", "0000:c1:00.0", MI300X)
    (gpu,) = machine.gpus.read(0)
    assert gpu == pb.Gpu(
        index=0, uuid="AMD-3f2b1a0c9d8e7f65", name="AMD Instinct MI300X", vendor="amd", state="ok",
        utilization_percent=83.0, memory_used_bytes=150 * GIB, memory_size_bytes=192 * GIB, temperature_celsius=61.0,
        power_watts=512.0, power_limit_watts=750.0, clock_hertz=2.1e9, memory_clock_hertz=1.3e9,
    )  # fmt: skip


def test_gpu_of_intel_has_its_power_from_the_second_reading_on(machine: Machine) -> None:
    machine.add("card0", "0000:03:00.0", ARC)
    (gpu,) = machine.gpus.read(0)
    assert (gpu.uuid, gpu.name, gpu.vendor) == ("INTEL-0000:03:00.0", "Intel GPU 0x56a0", "intel")
    assert (gpu.clock_hertz, gpu.temperature_celsius, gpu.power_limit_watts) == (2.4e9, 44.0, 190.0)
    assert not gpu.HasField("utilization_percent")
    assert not gpu.HasField("power_watts")
    machine.now += 5.0
    machine.write("0000:03:00.0", {"hwmon/hwmon2/energy1_input": str(1_000_000_000 + 5 * 60_000_000)})
    assert machine.gpus.read(0)[0].power_watts == pytest.approx(60.0)
    machine.now += 5.0
    machine.write("0000:03:00.0", {"hwmon/hwmon2/energy1_input": "5"})  # it was reset
    assert not machine.gpus.read(0)[0].HasField("power_watts")


def test_integrated_gpu_of_intel_has_its_clock_on_the_card(machine: Machine, tmp_path: Path) -> None:
    machine.add("card0", "0000:00:02.0", {"vendor": "0x8086", "device": "0x46a6"})
    (tmp_path / "class/drm/card0/gt_act_freq_mhz").write_text("1300\n")
    assert machine.gpus.read(0)[0].clock_hertz == 1.3e9


def test_cards_are_numbered_in_order_and_connectors_and_displays_are_none(machine: Machine, tmp_path: Path) -> None:
    for number in (10, 2, 1):
        machine.add(f"card{number}", f"0000:{number:02}:00.0", {"vendor": "0x1002", "device": f"0x{number}"})
    machine.add("card0", "0000:00:00.0", ASPEED)
    machine.add("card3", "0000:03:00.0", NVIDIA)
    (tmp_path / "class/drm/card1-DP-1").mkdir()
    (tmp_path / "class/drm/renderD128").mkdir()
    assert [(gpu.index, gpu.name) for gpu in machine.gpus.read(4)] == [
        (4, "AMD GPU 0x1"), (5, "AMD GPU 0x2"), (6, "AMD GPU 0x10")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("files", "absent"),
    [
        ({"gpu_busy_percent": "255"}, "utilization_percent"),
        ({"gpu_busy_percent": "-1"}, "utilization_percent"),
        ({"mem_info_vram_total": "0"}, "memory_size_bytes"),
        ({"mem_info_vram_used": str(2**64)}, "memory_used_bytes"),
        ({"hwmon/hwmon4/temp1_input": "4294967295"}, "temperature_celsius"),
        ({"hwmon/hwmon4/power1_cap": "0"}, "power_limit_watts"),
        ({"hwmon/hwmon4/freq1_input": "N/A"}, "clock_hertz"),
    ],
)
def test_value_that_is_none_is_absent(machine: Machine, files: dict[str, str], absent: str) -> None:
    machine.add("card0", "0000:c1:00.0", MI300X | files)
    assert not machine.gpus.read(0)[0].HasField(absent)  # type: ignore[arg-type]


def test_sleeping_gpu_is_not_woken(machine: Machine) -> None:
    machine.add("card0", "0000:c1:00.0", MI300X | {"power/runtime_status": "suspended"})
    (gpu,) = machine.gpus.read(0)
    assert (gpu.state, gpu.state_reason, gpu.uuid) == ("ok", "it sleeps", "AMD-3f2b1a0c9d8e7f65")
    assert not gpu.HasField("utilization_percent")


def test_machine_without_graphics_has_none(machine: Machine) -> None:
    assert machine.gpus.read(0) == []


def test_other_gpus_come_after_those_of_nvidia_and_are_not_for_tasks(machine: Machine) -> None:
    machine.add("card0", "0000:c1:00.0", MI300X)
    nvml = FakeNvml([FakeGpu(uuid="GPU-a"), FakeGpu(uuid="GPU-b")])
    collector = GpuCollector(nvml, others=machine.gpus)
    assert [(gpu.index, gpu.vendor) for gpu in collector.collect().gpus] == [(0, "nvidia"), (1, "nvidia"), (2, "amd")]
    assert collector.inventory == (2, ("GPU-a", "GPU-b"))
