"""AMD and Intel GPUs, as their kernel drivers show them in ``/sys/class/drm``. No library and no privilege is needed.

amdgpu: https://docs.kernel.org/gpu/amdgpu/driver-misc.html and .../thermal.html
i915, xe: https://docs.kernel.org/gpu/i915.html, Documentation/ABI/testing/sysfs-driver-intel-{i915,xe}-hwmon
Intel's drivers tell no use of the GPU without privileges, so that is absent.
"""

import re
from collections.abc import Callable
from pathlib import Path

from fleetpulse.proto import fleetpulse_pb2 as pb

_VENDORS = {"0x1002": "amd", "0x8086": "intel"}
"""By the number of the PCI vendor. NVIDIA's devices are read through NVML, and others are no GPUs but displays."""

_NAMES = {"amd": "AMD GPU", "intel": "Intel GPU"}
_CARD = re.compile(r"card([0-9]+)")
MAX_CELSIUS = 200.0
MAX_WATTS = 10_000.0

_Number = float | None


class DrmGpus:
    """Reads the GPUs of AMD and Intel. Used from one thread at a time."""

    def __init__(self, sys_root: Path, clock: Callable[[], float]) -> None:
        """``clock`` runs in seconds, for power that is told as energy."""
        self._cards, self._clock = sys_root / "class" / "drm", clock
        self._energy: dict[str, tuple[float, float]] = {}
        """By UUID: when, and how many joules."""

    def read(self, first_index: int) -> list[pb.Gpu]:
        """The GPUs in the order of their cards, numbered from ``first_index``. None without such a driver."""
        gpus: list[pb.Gpu] = []
        for card in sorted(self._find(), key=lambda card: int(card.name.removeprefix("card"))):
            vendor = _VENDORS.get(_text(card / "device" / "vendor"))
            if vendor is not None:
                gpus.append(self._read_card(card, vendor, first_index + len(gpus)))
        return gpus

    def _find(self) -> list[Path]:
        try:
            return [card for card in self._cards.iterdir() if _CARD.fullmatch(card.name)]
        except OSError:
            return []

    def _read_card(self, card: Path, vendor: str, index: int) -> pb.Gpu:
        device = card / "device"
        address = device.resolve().name
        gpu = pb.Gpu(index=index, vendor=vendor, uuid=_uuid(device, vendor, address), state="ok")
        gpu.name = _text(device / "product_name") or f"{_NAMES[vendor]} {_text(device / 'device')}".rstrip()
        # To read a sleeping one would wake it.
        if _text(device / "power" / "runtime_status") == "suspended":
            gpu.state_reason = "it sleeps"
            return gpu
        hwmon = next(iter(sorted(device.glob("hwmon/hwmon*"))), device / "hwmon")
        _set(gpu, "temperature_celsius", _within(MAX_CELSIUS, _number(hwmon / "temp1_input", 1e-3)))
        _set(gpu, "power_watts", _within(MAX_WATTS, self._power(gpu.uuid, hwmon)))
        _set(gpu, "power_limit_watts", _within(MAX_WATTS, _first(hwmon, ("power1_cap", "power1_max"), 1e-6)) or None)
        if vendor == "amd":
            _add_amd(gpu, device, hwmon)
        else:
            clock = _first(card, ("gt_act_freq_mhz", "gt/gt0/rps_act_freq_mhz"), 1e6)
            _set(gpu, "clock_hertz", _number(device / "tile0/gt0/freq0/act_freq", 1e6) if clock is None else clock)
        return gpu

    def _power(self, uuid: str, hwmon: Path) -> _Number:
        """Watts: told, or by the energy since the last reading."""
        watts = _first(hwmon, ("power1_average", "power1_input"), 1e-6)
        if watts is not None:
            return watts
        joules, now = _number(hwmon / "energy1_input", 1e-6), self._clock()
        if joules is None:
            return None
        before = self._energy.get(uuid)
        self._energy[uuid] = now, joules
        if before is None or now <= before[0] or joules < before[1]:
            return None
        return (joules - before[1]) / (now - before[0])


def _add_amd(gpu: pb.Gpu, device: Path, hwmon: Path) -> None:
    size = _number(device / "mem_info_vram_total")
    used = _number(device / "mem_info_vram_used")
    if size:
        gpu.memory_size_bytes = int(size)
        if used is not None and used <= size:
            gpu.memory_used_bytes = int(used)
    _set(gpu, "utilization_percent", _within(100.0, _number(device / "gpu_busy_percent")))
    _set(gpu, "clock_hertz", _number(hwmon / "freq1_input"))
    _set(gpu, "memory_clock_hertz", _number(hwmon / "freq2_input"))


def _uuid(device: Path, vendor: str, address: str) -> str:
    """The number that the device has, where it has one, or its place on the bus."""
    unique = _text(device / "unique_id")
    return f"{vendor.upper()}-{unique or address}"


def _set(gpu: pb.Gpu, name: str, value: _Number) -> None:
    if value is not None:
        setattr(gpu, name, value)


def _within(most: float, value: _Number) -> _Number:
    return value if value is not None and 0.0 <= value <= most else None


def _first(folder: Path, names: tuple[str, ...], scale: float) -> _Number:
    return next((value for name in names if (value := _number(folder / name, scale)) is not None), None)


def _number(path: Path, scale: float = 1.0) -> _Number:
    """A whole number that is 0 or more; ``None`` where the file is missing, refused or says something else."""
    text = _text(path)
    return int(text) * scale if text.isascii() and text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
