"""The readings of a simulated machine, which move like those of a real one. Pure: the caller gives time and seed."""

import math
import random

from fleetpulse.proto import fleetpulse_pb2 as pb

_GIB = 1024**3
_MODELS = ((8, 32), (16, 64), (32, 128), (64, 256))
"""Cores, and GiB of memory."""

_GPU_NAME = "NVIDIA A100-SXM4-80GB"
_GPU_MEMORY_BYTES = 80 * _GIB
_GPU_IDLE_WATTS, _GPU_PEAK_WATTS = 60.0, 400.0
_DISK_BYTES = 500 * _GIB
_COLLECTORS = ("cpu", "memory", "filesystem", "disk", "network", "load", "uptime", "gpu")
_DAY_SECONDS = 86_400.0
_DRIFT_SECONDS = 60.0
"""Time constant with which the load returns to its mean."""


class SimulatedMachine:
    """The same seed and the same times give the same readings.

    The load is a daily wave around the machine's mean plus noise that returns to it (an Ornstein-Uhlenbeck process);
    memory, GPUs, network and disk follow the load.
    """

    def __init__(self, worker_id: str, gpu_count: int, seed: int, started_at: float, custom_samples: int = 0) -> None:
        self.worker_id = worker_id
        self._custom_samples = custom_samples
        self._rng = random.Random(f"{seed}-{worker_id}")  # nosec B311 # chance without a secret
        self._cores, memory_gib = self._rng.choice(_MODELS)
        self._memory_bytes = memory_gib * _GIB
        self._mean_load = self._rng.uniform(0.15, 0.55)
        self._swing = self._rng.uniform(0.05, 0.25)
        self._phase = self._rng.uniform(0.0, 1.0)
        self._booted_at = started_at - self._rng.uniform(3_600.0, 90 * _DAY_SECONDS)
        self._sampled_at = started_at
        self._noise = 0.0
        self._disk_used_bytes = self._rng.uniform(0.2, 0.6) * _DISK_BYTES
        self._read_bytes = self._written_bytes = self._received_bytes = self._transmitted_bytes = 0.0
        self._gpu_loads = [self._rng.random() for _ in range(gpu_count)]
        self._gpu_temperatures = [40.0] * gpu_count
        self._readings = self._constant_readings()

    def register(self, incarnation_id: str, version: str) -> pb.Register:
        return pb.Register(
            worker_id=self.worker_id,
            incarnation_id=incarnation_id,
            hostname=f"{self.worker_id}.simulated",
            version=version,
            boot_time_unix_seconds=self._booted_at,
            capacity=pb.Capacity(
                cpu_cores=self._cores,
                memory_bytes=self._memory_bytes,
                gpu_count=len(self._gpu_loads),
                gpu_uuids=[self._gpu_uuid(index) for index in range(len(self._gpu_loads))],
            ),
            labels={"simulated": "true"},
        )

    def sample(self, now: float) -> pb.Heartbeat:
        """The readings at ``now``, Unix seconds."""
        elapsed = max(now - self._sampled_at, 0.0)
        self._sampled_at = now
        load = self._load_at(now, elapsed)
        self._move_bytes(load, elapsed)
        readings = self._readings
        readings.cpu.usage_percent = 100.0 * load
        readings.memory.used_bytes = int((0.15 + 0.6 * load) * self._memory_bytes)
        root = readings.filesystems[0]
        root.used_bytes = int(self._disk_used_bytes)
        root.available_bytes = int(0.95 * _DISK_BYTES) - root.used_bytes
        disk, network = readings.disk_devices[0], readings.network_interfaces[0]
        disk.read_bytes, disk.written_bytes = int(self._read_bytes), int(self._written_bytes)
        network.received_bytes, network.transmitted_bytes = int(self._received_bytes), int(self._transmitted_bytes)
        readings.load.load1, readings.load.load5 = load * self._cores, 0.8 * load * self._cores
        readings.uptime_seconds = now - self._booted_at
        for index, gpu in enumerate(readings.gpus):
            self._move_gpu(gpu, index, load, elapsed)
        for report in readings.collectors:
            report.duration_seconds = 1e-4 + 1.9e-3 * self._rng.random()
        heartbeat = pb.Heartbeat()
        heartbeat.CopyFrom(readings)
        if self._custom_samples:
            heartbeat.custom.extend(custom_metrics(self._custom_samples, load, now - self._booted_at))
        return heartbeat

    def _load_at(self, now: float, elapsed: float) -> float:
        """Share of the cores' time in use, 0 to 1."""
        keep = math.exp(-elapsed / _DRIFT_SECONDS)
        self._noise = self._noise * keep + self._rng.gauss(0.0, 0.05) * math.sqrt(1.0 - keep * keep)
        wave = math.sin(2.0 * math.pi * (now / _DAY_SECONDS + self._phase))
        return min(max(self._mean_load + self._swing * wave + self._noise, 0.01), 0.99)

    def _move_bytes(self, load: float, elapsed: float) -> None:
        self._read_bytes += elapsed * load * 40e6 * self._rng.random()
        written = elapsed * load * 25e6 * self._rng.random()
        self._written_bytes += written
        self._received_bytes += elapsed * load * 60e6 * self._rng.random()
        self._transmitted_bytes += elapsed * load * 45e6 * self._rng.random()
        # Most writes replace something; a full disk is cleaned up.
        self._disk_used_bytes += 0.001 * written
        if self._disk_used_bytes > 0.9 * _DISK_BYTES:
            self._disk_used_bytes = 0.3 * _DISK_BYTES

    def _gpu_uuid(self, index: int) -> str:
        return f"GPU-{random.Random(f'{self.worker_id}-{index}').getrandbits(64):016x}"  # nosec B311 # chance without a secret

    def _move_gpu(self, gpu: pb.Gpu, index: int, load: float, elapsed: float) -> None:
        step = self._rng.gauss(0.0, 0.02) * math.sqrt(elapsed)
        busy = self._gpu_loads[index] = min(max(self._gpu_loads[index] + step, 0.0), 1.0)
        # A die follows its power within a minute or so.
        target = 35.0 + 45.0 * busy
        self._gpu_temperatures[index] += (target - self._gpu_temperatures[index]) * (1.0 - math.exp(-elapsed / 30.0))
        gpu.utilization_percent = 100.0 * busy
        gpu.memory_used_bytes = int((0.05 + 0.9 * busy * load) * _GPU_MEMORY_BYTES)
        gpu.temperature_celsius = self._gpu_temperatures[index]
        gpu.power_watts = _GPU_IDLE_WATTS + (_GPU_PEAK_WATTS - _GPU_IDLE_WATTS) * busy

    def _constant_readings(self) -> pb.Heartbeat:
        """A heartbeat with all that does not change. Building each anew would cost more than to move its readings."""
        return pb.Heartbeat(
            cpu=pb.Cpu(logical_cores=self._cores),
            memory=pb.Memory(size_bytes=self._memory_bytes),
            filesystems=[
                pb.Filesystem(mountpoint="/", size_bytes=_DISK_BYTES, is_read_only=False, fstype="ext4", state="ok")
            ],
            disk_devices=[pb.DiskDevice(device="nvme0n1")],
            network_interfaces=[pb.NetworkInterface(interface="eth0")],
            load=pb.Load(load15=self._mean_load * self._cores),
            gpus=[
                pb.Gpu(
                    index=index,
                    uuid=self._gpu_uuid(index),
                    name=_GPU_NAME,
                    memory_size_bytes=_GPU_MEMORY_BYTES,
                    state="ok",
                    is_throttled=False,
                    process_count=1,
                )
                for index in range(len(self._gpu_loads))
            ],
            collectors=[pb.CollectorReport(collector=name, success=True) for name in _COLLECTORS],
        )


def custom_metrics(samples: int, load: float, uptime_seconds: float) -> list[pb.CustomMetric]:
    """So many samples, gauges and counters in turn, as a service with the load, 0 to 1, would give them."""
    depth = pb.CustomMetric(
        name="queue_depth", type=pb.CUSTOM_TYPE_GAUGE, help="Requests that wait, by queue.", label_names=["queue"]
    )
    served = pb.CustomMetric(
        name="requests_total", type=pb.CUSTOM_TYPE_COUNTER, help="Requests served, by queue.", label_names=["queue"]
    )
    for number in range(samples):
        queue, is_gauge = [f"queue-{number // 2}"], number % 2 == 0
        value = round(40.0 * load * (1 + number % 5)) if is_gauge else round(uptime_seconds * (1 + number % 3))
        (depth if is_gauge else served).samples.add(label_values=queue, value=value)
    return [metric for metric in (depth, served) if metric.samples]
