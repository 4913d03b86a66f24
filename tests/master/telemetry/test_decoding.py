"""master.telemetry.decoding: heartbeats"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import astuple

from fleetpulse.master.errors import InvalidMessage, InvalidReading
from fleetpulse.master.telemetry.decoding import decode_heartbeat
from fleetpulse.master.telemetry.readings import (
    CollectorReport,
    DiskDevice,
    Filesystem,
    Gpu,
    GpuInstance,
    GpuProcess,
    NetworkInterface,
    Reading,
    RunningTask,
)
from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.fields import MAX_DEVICES, MAX_RUNNING_TASKS, MAX_TEXT_LENGTH, is_visible
from tests.master.fleet import GIB, full_heartbeat, heartbeat
from tests.master.hostile import ANY_TEXT, NOT_NUMBERS, assert_safe_to_log

# What is left out


def test_empty_heartbeat_has_no_readings() -> None:
    assert decode_heartbeat(heartbeat()) == Reading()
    assert set(leaves(Reading())) == {None}


def test_missing_readings_of_devices_are_none() -> None:
    reading = decode_heartbeat(
        heartbeat(
            cpu=pb.Cpu(),
            memory=pb.Memory(),
            load=pb.Load(),
            filesystems=[pb.Filesystem(mountpoint="/")],
            disk_devices=[pb.DiskDevice(device="sda")],
            network_interfaces=[pb.NetworkInterface(interface="eth0")],
            gpus=[pb.Gpu(uuid="GPU-aaaa")],
            running_tasks=[pb.RunningTask(task_id="train")],
        )
    )
    assert reading == Reading(
        filesystems=(Filesystem("/", None, None),),
        disk_devices=(DiskDevice("sda", None, None),),
        network_interfaces=(NetworkInterface("eth0", None, None),),
        gpus=(Gpu(0, "GPU-aaaa", "", None, None, None, None, None),),
        running_tasks=(RunningTask("train", 0, None, None),),
    )


def test_measured_zero_stays_zero() -> None:
    reading = decode_heartbeat(
        heartbeat(
            cpu=pb.Cpu(usage_percent=0.0),
            memory=pb.Memory(swap_used_bytes=0, swap_size_bytes=0),
            load=pb.Load(load1=0.0),
            gpus=[pb.Gpu(utilization_percent=0.0, temperature_celsius=0.0, power_watts=0.0)],
        )
    )
    assert (
        reading.cpu.usage_percent,
        reading.memory.swap_used_bytes,
        reading.memory.swap_size_bytes,
        reading.load.load1,
    ) == (0, 0, 0, 0)
    assert reading.gpus[0].utilization_percent == 0
    assert reading.gpus[0].temperature_celsius == 0
    assert reading.gpus[0].power_watts == 0


def test_every_reading_is_decoded() -> None:
    reading = decode_heartbeat(full_heartbeat())
    assert reading.cpu.usage_percent == 12.5
    assert reading.cpu.logical_cores == 32
    assert reading.memory.used_bytes == 16 * GIB
    assert reading.memory.size_bytes == 64 * GIB
    assert reading.memory.swap_used_bytes == GIB
    assert reading.memory.swap_size_bytes == 8 * GIB
    assert (reading.load.load1, reading.load.load5, reading.load.load15) == (1.25, 2.5, 3.75)
    assert reading.uptime_seconds == 86400.5
    assert reading.filesystems[1] == Filesystem("/data", 3 * GIB, 2000 * GIB)
    assert reading.filesystems[0] == Filesystem(
        "/", 100 * GIB, 500 * GIB, 375 * GIB, 1000, 250, False, "/dev/sda1", "ext4", "ok"
    )
    assert (reading.filesystems[2].state, reading.filesystems[2].is_read_only) == ("error", None)
    assert reading.disk_devices == (DiskDevice("nvme0n1", 1001, 1002, 1003, "ok"),)
    assert reading.network_interfaces == (NetworkInterface("eth0", 2001, 2002),)
    assert reading.gpus[0] == Gpu(
        0, "GPU-aaaa", "NVIDIA H100", 75.0, 40 * GIB, 80 * GIB, 61.0, 402.5, "ok", None, 700.0, 1.98e9, 2.619e9, 10.0,
        20.0, is_throttled=True, ecc_corrected_errors=7, ecc_uncorrected_errors=1, last_xid=79, nvlink_errors=3,
        vendor="nvidia", throttle_reasons=("thermal",), process_count=2,
        processes=(GpuProcess(71, "ada", "python", 30 * GIB), GpuProcess(72)),
        instances=(GpuInstance("MIG-aaaa", "H100 MIG 1g.10gb", 0, GIB, 10 * GIB),),
    )  # fmt: skip
    assert reading.gpus[1] == Gpu(1, "GPU-bbbb", "NVIDIA H100", None, None, 80 * GIB, None, None)
    assert reading.running_tasks == (RunningTask("train-1", 2, 250.0, GIB),)
    assert reading.collectors == (
        CollectorReport("cpu", True, 0.001),
        CollectorReport("gpu", False, 0.25, "the driver hangs"),
    )


# Values


def with_value(field: str, value: float) -> pb.Heartbeat:
    """A heartbeat with one number at a path as ``gpus.power_watts``."""
    message = heartbeat()
    *parents, name = field.split(".")
    target: Any = message
    for parent in parents:
        target = getattr(target, parent)
        if hasattr(target, "add"):
            target = target.add()
    setattr(target, name, value)
    return message


PERCENTS = ["cpu.usage_percent", "gpus.utilization_percent"]
AMOUNTS = [
    "load.load1", "load.load5", "load.load15", "uptime_seconds", "gpus.power_watts", "running_tasks.cpu_usage_percent",
    "collectors.duration_seconds",
]  # fmt: skip
JUST_BELOW_ZERO = math.nextafter(0.0, -1.0)


REFUSED = [
    *((field, value) for field in PERCENTS for value in [*NOT_NUMBERS, JUST_BELOW_ZERO, -1.0, 100.00000000000001]),
    *((field, value) for field in AMOUNTS for value in [*NOT_NUMBERS, JUST_BELOW_ZERO, -1.0]),
    *(("gpus.temperature_celsius", value) for value in NOT_NUMBERS),
    *(("sent_time_unix_seconds", value) for value in [*NOT_NUMBERS, -1.0, 1.1e11]),
]


@pytest.mark.parametrize(("field", "value"), REFUSED)
def test_number_out_of_range_is_refused(field: str, value: float) -> None:
    with pytest.raises(InvalidReading) as caught:
        decode_heartbeat(with_value(field, value))
    assert field in str(caught.value)
    assert str(value) in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, value) for field in PERCENTS for value in (0.0, -0.0, 100.0)),
        *((field, value) for field in AMOUNTS for value in (0.0, 1e308)),
        ("running_tasks.cpu_usage_percent", 6400.0),
        ("gpus.temperature_celsius", -273.15),
        ("sent_time_unix_seconds", 0.0),
        ("sent_time_unix_seconds", 1e11),
    ],
)
def test_number_at_the_end_of_its_range_is_accepted(field: str, value: float) -> None:
    decode_heartbeat(with_value(field, value))


# Texts

Build = Callable[[str], pb.Heartbeat]
TEXTS: dict[str, Build] = {
    "filesystems.mountpoint": lambda text: heartbeat(filesystems=[pb.Filesystem(mountpoint=text)]),
    "disk_devices.device": lambda text: heartbeat(disk_devices=[pb.DiskDevice(device=text)]),
    "network_interfaces.interface": lambda text: heartbeat(network_interfaces=[pb.NetworkInterface(interface=text)]),
    "gpus.uuid": lambda text: heartbeat(gpus=[pb.Gpu(uuid=text)]),
    "gpus.name": lambda text: heartbeat(gpus=[pb.Gpu(name=text)]),
    "running_tasks.task_id": lambda text: heartbeat(running_tasks=[pb.RunningTask(task_id=text)]),
    "collectors.collector": lambda text: heartbeat(collectors=[pb.CollectorReport(collector=text)]),
    "collectors.error": lambda text: heartbeat(collectors=[pb.CollectorReport(error=text)]),
}
BAD_TEXTS = ["a\nb", "a\x00", "\x1b[2J", "\u202e", "a" * (MAX_TEXT_LENGTH + 1), "a" * 10_240]


@pytest.mark.parametrize("text", BAD_TEXTS, ids=lambda text: ascii(text[:10]))
@pytest.mark.parametrize("field", TEXTS)
def test_unprintable_or_long_text_is_refused(field: str, text: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        decode_heartbeat(TEXTS[field](text))
    assert not isinstance(caught.value, InvalidReading)
    assert field in str(caught.value)
    assert_safe_to_log(str(caught.value))


@pytest.mark.parametrize("text", ['/mnt/"quoted"', "C:\\data", "/mnt/{a=b}", "/mnt/名前", "a" * MAX_TEXT_LENGTH, ""])
@pytest.mark.parametrize("field", TEXTS)
def test_odd_but_printable_text_is_accepted(field: str, text: str) -> None:
    decode_heartbeat(TEXTS[field](text))


# Numbers of devices

REPEATED: dict[str, Callable[[int], pb.Heartbeat]] = {
    "filesystems": lambda n: heartbeat(filesystems=[pb.Filesystem(mountpoint=f"/{i}") for i in range(n)]),
    "disk_devices": lambda n: heartbeat(disk_devices=[pb.DiskDevice(device=f"sd{i}") for i in range(n)]),
    "network_interfaces": lambda n: heartbeat(
        network_interfaces=[pb.NetworkInterface(interface=f"eth{i}") for i in range(n)]
    ),
    "gpus": lambda n: heartbeat(gpus=[pb.Gpu(index=i) for i in range(n)]),
    "running_tasks": lambda n: heartbeat(running_tasks=[pb.RunningTask(task_id=f"t{i}") for i in range(n)]),
    "collectors": lambda n: heartbeat(collectors=[pb.CollectorReport(collector=f"c{i}") for i in range(n)]),
}


@pytest.mark.parametrize("field", REPEATED)
def test_too_many_entries_are_refused(field: str) -> None:
    most = MAX_RUNNING_TASKS if field == "running_tasks" else MAX_DEVICES
    decode_heartbeat(REPEATED[field](most))
    with pytest.raises(InvalidMessage, match=f"{field} has {most + 1} entries"):
        decode_heartbeat(REPEATED[field](most + 1))


@pytest.mark.parametrize("field", REPEATED)
def test_duplicate_entries_are_refused(field: str) -> None:
    message = REPEATED[field](2)
    getattr(message, field).append(getattr(message, field)[0])
    with pytest.raises(InvalidMessage, match=f"{field} has two entries for one"):
        decode_heartbeat(message)


# Anything

FLOATS = st.floats() | st.none()
UINT64 = st.integers(0, 2**64 - 1) | st.none()
UINT32 = st.integers(0, 2**32 - 1) | st.none()


def messages(kind: type[Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(kind, **fields)


HEARTBEATS = messages(
    pb.Heartbeat,
    worker_id=ANY_TEXT,
    incarnation_id=ANY_TEXT,
    sequence_number=st.integers(0, 2**64 - 1),
    sent_time_unix_seconds=FLOATS,
    cpu=messages(pb.Cpu, usage_percent=FLOATS, logical_cores=UINT32),
    memory=messages(pb.Memory, used_bytes=UINT64, size_bytes=UINT64),
    load=messages(pb.Load, load1=FLOATS),
    uptime_seconds=FLOATS,
    filesystems=st.lists(messages(pb.Filesystem, mountpoint=ANY_TEXT, used_bytes=UINT64), max_size=3),
    gpus=st.lists(
        messages(pb.Gpu, index=UINT32, name=ANY_TEXT, utilization_percent=FLOATS, power_watts=FLOATS), max_size=3
    ),
    running_tasks=st.lists(messages(pb.RunningTask, task_id=ANY_TEXT, cpu_usage_percent=FLOATS), max_size=3),
    collectors=st.lists(
        messages(pb.CollectorReport, collector=ANY_TEXT, success=st.booleans(), duration_seconds=st.floats()),
        max_size=3,
    ),
)


def leaves(value: object) -> Iterator[object]:
    if isinstance(value, Struct):
        value = astuple(value)
    if isinstance(value, tuple):
        for item in value:
            yield from leaves(item)
    else:
        yield value


@given(HEARTBEATS)
def test_any_heartbeat_is_decoded_or_refused_with_a_reason(message: pb.Heartbeat) -> None:
    try:
        reading = decode_heartbeat(message)
    except InvalidMessage as error:
        assert_safe_to_log(str(error))
        return
    for leaf in leaves(reading):
        assert not isinstance(leaf, float) or math.isfinite(leaf)
        assert not isinstance(leaf, str) or is_visible(leaf)
    assert reading.cpu.usage_percent is None or 0 <= reading.cpu.usage_percent <= 100
