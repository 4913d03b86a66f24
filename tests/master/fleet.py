"""A telemetry manager on a manual clock, and heartbeats for it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent

from fleetpulse.master.config import LeaseConfig
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.telemetry.manager import LIVENESS_CHECK_SECONDS, TelemetryManager
from fleetpulse.master.telemetry.records import Clock, TelemetryObserver, WorkerTelemetry
from fleetpulse.proto import fleetpulse_pb2 as pb

GIB = 1024**3


class ManualClock:
    """A clock that only tests advance."""

    def __init__(self) -> None:
        # Quarters of a second are exact as floats, so tests can hit limits exactly.
        self.monotonic = 1000.0
        self.wall = 1_700_000_000.0

    def advance(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall += seconds

    @property
    def port(self) -> Clock:
        return Clock(monotonic=lambda: self.monotonic, wall=lambda: self.wall)


class Recorder:
    """An observer that records its calls."""

    def __init__(self) -> None:
        self.changes: list[WorkerTelemetry] = []
        self.removed: list[str] = []

    def worker_changed(self, telemetry: WorkerTelemetry) -> None:
        self.changes.append(telemetry)

    def worker_removed(self, worker_id: str) -> None:
        self.removed.append(worker_id)


class Fleet:
    """A TelemetryManager with its dependencies. ``pass_time`` replaces its periodic liveness check."""

    def __init__(self, lease_config: LeaseConfig, *observers: TelemetryObserver) -> None:
        self.clock = ManualClock()
        self.instruments = Instruments()
        self.seen = Recorder()
        self.manager = TelemetryManager(lease_config, self.instruments, (self.seen, *observers), self.clock.port)

    def beat(self, worker_id: str = "rack-7", **fields: Any) -> None:
        """Processes a heartbeat until it is visible."""
        self.manager.process_heartbeat(heartbeat(worker_id, **fields))
        settle()

    def pass_time(self, seconds: float) -> None:
        """Advances the clock and checks liveness at the master's interval."""
        for _ in range(round(seconds / LIVENESS_CHECK_SECONDS)):
            self.clock.advance(LIVENESS_CHECK_SECONDS)
            self.manager.check_liveness()

    def is_active(self, worker_id: str = "rack-7") -> bool:
        return self.manager.get_worker_telemetry(worker_id).is_active

    def metric(self, name: str, **labels: str) -> float | None:
        """The value of one of the master's own metrics."""
        return self.instruments.registry.get_sample_value(f"fleetpulse_{name}", labels)


@contextmanager
def running_fleet(lease_config: LeaseConfig = LeaseConfig(), *observers: TelemetryObserver) -> Iterator[Fleet]:  # noqa: B008 - immutable
    fleet = Fleet(lease_config, *observers)
    try:
        yield fleet
    finally:
        fleet.manager.shutdown(timeout_seconds=1.0)


def settle() -> None:
    """Runs all greenlets until all of them wait."""
    gevent.idle()


def wait_until(condition: Callable[[], bool]) -> None:
    """Runs greenlets until the condition holds. Fails after 20 s."""
    with gevent.Timeout(20.0):
        while not condition():
            gevent.sleep(0.005)


def heartbeat(worker_id: str = "rack-7", **fields: Any) -> pb.Heartbeat:
    return pb.Heartbeat(worker_id=worker_id, **fields)


def full_heartbeat(worker_id: str = "rack-7", **fields: Any) -> pb.Heartbeat:
    """A heartbeat with every reading, each with a different value."""
    return heartbeat(
        worker_id,
        incarnation_id="first",
        sequence_number=1,
        sent_time_unix_seconds=1_700_000_000.0,
        cpu=pb.Cpu(usage_percent=12.5, logical_cores=32),
        memory=pb.Memory(used_bytes=16 * GIB, size_bytes=64 * GIB, swap_used_bytes=GIB, swap_size_bytes=8 * GIB),
        filesystems=[
            pb.Filesystem(
                mountpoint="/", used_bytes=100 * GIB, size_bytes=500 * GIB, available_bytes=375 * GIB, inodes=1000,
                inodes_free=250, is_read_only=False, device="/dev/sda1", fstype="ext4", state="ok",
            ),
            pb.Filesystem(mountpoint="/data", used_bytes=3 * GIB, size_bytes=2000 * GIB),
            pb.Filesystem(mountpoint="/nfs", fstype="nfs4", state="error", state_reason="it does not answer"),
        ],
        disk_devices=[
            pb.DiskDevice(device="nvme0n1", read_bytes=1001, written_bytes=1002, size_bytes=1003, state="ok")
        ],
        network_interfaces=[pb.NetworkInterface(interface="eth0", received_bytes=2001, transmitted_bytes=2002)],
        load=pb.Load(load1=1.25, load5=2.5, load15=3.75),
        uptime_seconds=86400.5,
        gpus=[
            pb.Gpu(
                index=0, uuid="GPU-aaaa", name="NVIDIA H100", utilization_percent=75.0, memory_used_bytes=40 * GIB,
                memory_size_bytes=80 * GIB, temperature_celsius=61.0, power_watts=402.5,
                state="ok", vendor="nvidia", power_limit_watts=700.0, clock_hertz=1.98e9, memory_clock_hertz=2.619e9,
                encoder_utilization_percent=10.0, decoder_utilization_percent=20.0, is_throttled=True,
                ecc_corrected_errors=7, ecc_uncorrected_errors=1, last_xid=79, nvlink_errors=3,
                throttle_reasons=["thermal"], process_count=2,
                processes=[
                    pb.GpuProcess(pid=71, user="ada", command="python", memory_used_bytes=30 * GIB),
                    pb.GpuProcess(pid=72),
                ],
                instances=[
                    pb.GpuInstance(
                        uuid="MIG-aaaa", name="H100 MIG 1g.10gb", memory_used_bytes=GIB, memory_size_bytes=10 * GIB
                    ),
                ],
            ),
            pb.Gpu(index=1, uuid="GPU-bbbb", name="NVIDIA H100", memory_size_bytes=80 * GIB),
        ],
        running_tasks=[pb.RunningTask(task_id="train-1", attempt=2, cpu_usage_percent=250.0, memory_used_bytes=GIB)],
        collectors=[
            pb.CollectorReport(collector="cpu", success=True, duration_seconds=0.001),
            pb.CollectorReport(collector="gpu", success=False, duration_seconds=0.25, error="the driver hangs"),
        ],
        pressure=pb.Pressure(
            cpu_waiting_percent=5.0, cpu_waiting_seconds=100.5,
            memory_waiting_percent=2.0, memory_waiting_seconds=20.25,
            memory_stalled_percent=1.0, memory_stalled_seconds=10.125, io_waiting_percent=4.0, io_waiting_seconds=40.5,
            io_stalled_percent=3.0, io_stalled_seconds=30.75,
        ),
        sensors=[
            pb.Sensor(sensor="coretemp/Package id 0", temperature_celsius=57.0),
            pb.Sensor(sensor="thinkpad/fan1", fan_rpm=2913.0),
        ],
        systemd_failed_units=2,
        left_out=[pb.LeftOut(collector="disk", count=5)],
        task_support=pb.TaskSupport(available=True),
        engine_failures=3,
        **fields,
    )  # fmt: skip
