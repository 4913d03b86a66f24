"""worker.collectors.pressure"""

from pathlib import Path

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors.pressure import PressureCollector

SOME = "some avg10=53.74 avg60=21.60 avg300=10.93 total=9656612058\n"
FULL = "full avg10=1.50 avg60=0.00 avg300=0.00 total=2500000\n"


def pressure_of(proc: Path, **files: str) -> pb.Heartbeat:
    (proc / "pressure").mkdir(exist_ok=True)
    for name, text in files.items():
        (proc / "pressure" / name).write_text(text)
    return PressureCollector(proc).collect()


def test_waiting_and_stalled_are_reported_in_percent_and_seconds(tmp_path: Path) -> None:
    pressure = pressure_of(tmp_path, cpu=SOME + FULL, memory=SOME + FULL, io=SOME + FULL).pressure
    assert (pressure.cpu_waiting_percent, pressure.cpu_waiting_seconds) == (53.74, 9656.612058)
    assert (pressure.memory_stalled_percent, pressure.memory_stalled_seconds) == (1.5, 2.5)
    assert (pressure.io_waiting_percent, pressure.io_stalled_seconds) == (53.74, 2.5)


def test_zero_is_reported_and_what_an_older_kernel_lacks_is_absent(tmp_path: Path) -> None:
    pressure = pressure_of(tmp_path, cpu="some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", io="odd\nsome\n").pressure
    assert pressure.HasField("cpu_waiting_seconds")
    assert not pressure.HasField("memory_waiting_seconds")
    assert not pressure.HasField("io_waiting_seconds")


def test_kernel_without_pressure_is_no_failure(tmp_path: Path) -> None:
    assert PressureCollector(tmp_path).collect() == pb.Heartbeat()
    (tmp_path / "pressure" / "cpu").mkdir(parents=True)  # cannot be read, as where it is switched off at boot
    assert PressureCollector(tmp_path).collect() == pb.Heartbeat()
