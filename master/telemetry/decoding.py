"""From the wire to records: every rule about what a message may say is enforced here, once, for every transport.

Pure functions; they raise ``InvalidMessage`` or ``InvalidReading`` with the field's name, its value and the rule.
"""

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from types import MappingProxyType
from typing import Any, TypeVar

from fleetpulse.master.errors import InvalidMessage, InvalidReading
from fleetpulse.master.telemetry.custom import custom_from
from fleetpulse.master.telemetry.records import (
    Capacity,
    CollectorReport,
    DiskDeviceReading,
    FilesystemReading,
    GpuReading,
    NetworkInterfaceReading,
    Reading,
    Registration,
    RunningTask,
    TaskSupport,
)
from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import WORKER_ID_RULE, is_worker_id

MAX_DEVICES = 64
"""Of each kind (filesystems, disks, interfaces, GPUs, collectors) in one heartbeat."""

MAX_RUNNING_TASKS = 1024
MAX_LABELS = 64
MAX_TEXT_LENGTH = 256
MAX_UNIX_SECONDS = 1e11
"""In the year 5138: more than that is no time but a mistake, and a mean over it would say nothing."""

Item = TypeVar("Item")
Reported = TypeVar("Reported", FilesystemReading, DiskDeviceReading, NetworkInterfaceReading)
Numbered = TypeVar("Numbered", GpuReading, RunningTask)

_COLLECTOR = attrgetter("collector", "success", "duration_seconds", "error")
_collector_report = partial(tuple.__new__, CollectorReport)
"""``CollectorReport._make``, but all of it in C."""

_CAN_RUN_TASKS = TaskSupport(available=True)
_MAX_KNOWN_TEXTS = 2048
_known_texts: dict[str, str] = {}
_known_names: dict[tuple[str, ...], tuple[str, ...]] = {}
"""Machines have much in common: what was checked before is neither checked nor kept twice."""


_INCARNATION_ID = re.compile(r"[A-Za-z0-9._-]{0,64}", re.ASCII)
_LABEL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]{0,63}", re.ASCII)


def check_worker_id(worker_id: str) -> None:
    """Raise ``InvalidMessage`` unless ``worker_id`` keeps the rule of the contract."""
    if not is_worker_id(worker_id):
        raise InvalidMessage(f"worker_id {_shown(worker_id)} is refused: it must be {WORKER_ID_RULE}")


def check_incarnation_id(incarnation_id: str) -> None:
    """Raise ``InvalidMessage`` unless ``incarnation_id`` is empty or a short word."""
    if not _INCARNATION_ID.fullmatch(incarnation_id):
        raise InvalidMessage(
            f"incarnation_id {_shown(incarnation_id)} is refused: it must be at most 64 letters, digits, '._-'"
        )


def registration_from(message: pb.Register) -> Registration:
    """What a ``Register`` says, checked."""
    check_worker_id(message.worker_id)
    check_incarnation_id(message.incarnation_id)
    if len(message.labels) > MAX_LABELS:
        raise InvalidMessage(f"labels has {len(message.labels)} entries; at most {MAX_LABELS} are accepted")
    for name, value in message.labels.items():
        if not _LABEL_NAME.fullmatch(name):
            raise InvalidMessage(f"label name {_shown(name)} is refused: letters, digits and '_./-', 64 at most")
        _text("label value", value)
    capacity = message.capacity
    return Registration(
        incarnation_id=message.incarnation_id,
        hostname=_text("hostname", message.hostname),
        version=_text("version", message.version),
        boot_time=_unix_time("boot_time_unix_seconds", _given(message, "boot_time_unix_seconds")),
        capacity=Capacity(
            cpu_cores=_amount("capacity.cpu_cores", _given(capacity, "cpu_cores")),
            memory_bytes=_given(capacity, "memory_bytes"),
            gpu_count=_given(capacity, "gpu_count"),
            gpu_uuids=_gpu_uuids(capacity.gpu_uuids),
        ),
        labels=MappingProxyType(dict(message.labels)),
        task_support=_task_support(message),
    )


def reading_from(message: pb.Heartbeat) -> Reading:
    """What a ``Heartbeat`` measured, checked. Its worker_id and incarnation_id are the caller's to check."""
    _unix_time("sent_time_unix_seconds", _given(message, "sent_time_unix_seconds"))
    cpu, memory, load = message.cpu, message.memory, message.load
    return Reading(
        cpu_usage_percent=_percent("cpu.usage_percent", _given(cpu, "usage_percent")),
        cpu_logical_cores=_given(cpu, "logical_cores"),
        memory_used_bytes=_given(memory, "used_bytes"),
        memory_size_bytes=_given(memory, "size_bytes"),
        swap_used_bytes=_given(memory, "swap_used_bytes"),
        swap_size_bytes=_given(memory, "swap_size_bytes"),
        load1=_amount("load.load1", _given(load, "load1")),
        load5=_amount("load.load5", _given(load, "load5")),
        load15=_amount("load.load15", _given(load, "load15")),
        uptime_seconds=_amount("uptime_seconds", _given(message, "uptime_seconds")),
        filesystems=_named("filesystems", "mountpoint", _filesystem_from, message.filesystems),
        disk_devices=_named("disk_devices", "device", _disk_device_from, message.disk_devices),
        network_interfaces=_named(
            "network_interfaces", "interface", _network_interface_from, message.network_interfaces
        ),
        gpus=_each("gpus", _gpu_from, message.gpus),
        running_tasks=_each("running_tasks", _task_from, message.running_tasks, MAX_RUNNING_TASKS),
        collectors=_collectors_from(message.collectors),
        task_support=_task_support(message),
        engine_failures=_given(message, "engine_failures"),
        custom=custom_from(message.custom) if message.custom else (),
    )


def _task_support(message: pb.Register | pb.Heartbeat) -> TaskSupport | None:
    if not message.HasField("task_support"):
        return None
    support = message.task_support
    return _CAN_RUN_TASKS if support.available else TaskSupport(False, _text("task_support.reason", support.reason))


def _gpu_uuids(uuids: Sequence[str]) -> tuple[str, ...]:
    if len(uuids) > MAX_DEVICES or len(set(uuids)) < len(uuids):
        raise InvalidMessage(f"capacity.gpu_uuids must be at most {MAX_DEVICES} different ones")
    return tuple(_text("capacity.gpu_uuids", uuid) for uuid in uuids)


def _filesystem_from(name: str, item: pb.Filesystem) -> FilesystemReading:
    return FilesystemReading(name, _given(item, "used_bytes"), _given(item, "size_bytes"))


def _disk_device_from(name: str, item: pb.DiskDevice) -> DiskDeviceReading:
    return DiskDeviceReading(name, _given(item, "read_bytes"), _given(item, "written_bytes"))


def _network_interface_from(name: str, item: pb.NetworkInterface) -> NetworkInterfaceReading:
    return NetworkInterfaceReading(name, _given(item, "received_bytes"), _given(item, "transmitted_bytes"))


def _collectors_from(items: Sequence[pb.CollectorReport]) -> tuple[CollectorReport, ...]:
    """They are the most numerous things in a heartbeat, so they are read column by column."""
    if not items:
        return ()
    names, successes, durations, errors = zip(*map(_COLLECTOR, items[:]), strict=True)
    names = _known_names.get(names) or _names("collectors", "collector", names)
    for duration in durations:
        if not 0.0 <= duration < math.inf:
            raise InvalidReading(f"collectors.duration_seconds is {duration}; it must be a finite number, 0 or more")
    if any(errors):
        errors = tuple([_text("collectors.error", error) for error in errors])
    return tuple(map(_collector_report, zip(names, successes, durations, errors, strict=True)))


def _gpu_from(item: pb.Gpu) -> GpuReading:
    return GpuReading(
        gpu_index=item.index,
        uuid=_text("gpus.uuid", item.uuid),
        name=_text("gpus.name", item.name),
        utilization_percent=_percent("gpus.utilization_percent", _given(item, "utilization_percent")),
        memory_used_bytes=_given(item, "memory_used_bytes"),
        memory_size_bytes=_given(item, "memory_size_bytes"),
        temperature_celsius=_finite("gpus.temperature_celsius", _given(item, "temperature_celsius")),
        power_watts=_amount("gpus.power_watts", _given(item, "power_watts")),
    )


def _task_from(item: pb.RunningTask) -> RunningTask:
    return RunningTask(
        task_id=_text("running_tasks.task_id", item.task_id),
        attempt=item.attempt,
        cpu_usage_percent=_amount("running_tasks.cpu_usage_percent", _given(item, "cpu_usage_percent")),
        memory_used_bytes=_given(item, "memory_used_bytes"),
    )


def _given(message: Any, field: str) -> Any:
    """The field's value, or ``None`` when the sender left it out."""
    value = getattr(message, field)
    # Only a 0 may be one that nobody sent, and to ask costs more than the value.
    return value if value or message.HasField(field) else None


def _percent(field: str, value: float | None) -> float | None:
    # A NaN fails every comparison, so it is refused here too.
    if value is not None and not 0.0 <= value <= 100.0:
        raise InvalidReading(f"{field} is {value}; it must be a number from 0 to 100")
    return value


def _amount(field: str, value: float | None) -> float | None:
    if value is not None and not 0.0 <= value < math.inf:
        raise InvalidReading(f"{field} is {value}; it must be a finite number, 0 or more")
    return value


def _unix_time(field: str, value: float | None) -> float | None:
    if value is not None and not 0.0 <= value <= MAX_UNIX_SECONDS:
        raise InvalidReading(f"{field} is {value}; it must be a Unix time in seconds, from 0 to {MAX_UNIX_SECONDS:.0f}")
    return value


def _finite(field: str, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise InvalidReading(f"{field} is {value}; it must be a finite number")
    return value


def _text(field: str, value: str) -> str:
    known = _known_texts.get(value)
    if known is not None:
        return known
    if len(value) > MAX_TEXT_LENGTH or not value.isprintable():
        raise InvalidMessage(
            f"{field} {_shown(value)} is refused: it must be at most {MAX_TEXT_LENGTH} printable characters"
        )
    if len(_known_texts) < _MAX_KNOWN_TEXTS:
        _known_texts[value] = value
    return value


def _named(kind: str, field: str, read: Callable[[str, Item], Reported], items: Sequence[Item]) -> tuple[Reported, ...]:
    """What is reported of devices that have a name, which is checked for all of them together."""
    if not items:
        return ()
    # A slice is a list, which is walked much faster than protobuf's own sequence.
    items = items[:]
    names = tuple([getattr(item, field) for item in items])
    return tuple(map(read, _known_names.get(names) or _names(kind, field, names), items))


def _names(kind: str, field: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """Check the names of some devices, and remember that."""
    _check_number(kind, len(names), MAX_DEVICES)
    checked = tuple([_text(f"{kind}.{field}", name) for name in names])
    _check_different(kind, field, checked)
    if len(_known_names) < _MAX_KNOWN_TEXTS:
        _known_names[names] = checked
    return checked


def _each(
    kind: str, read: Callable[[Item], Numbered], items: Sequence[Item], most: int = MAX_DEVICES
) -> tuple[Numbered, ...]:
    if not items:
        return ()
    _check_number(kind, len(items), most)
    readings = tuple(map(read, items))
    # What a reading is of comes first in it.
    _check_different(kind, readings[0]._fields[0], [reading[0] for reading in readings])
    return readings


def _check_number(kind: str, number: int, most: int) -> None:
    if number > most:
        raise InvalidMessage(f"{kind} has {number} entries; at most {most} are accepted")


def _check_different(kind: str, field: str, names: Sequence[str | int]) -> None:
    # Twice the same would be one series with two values on /metrics.
    if len(set(names)) < len(names):
        raise InvalidMessage(f"{kind} has two entries for one {field}")


def _shown(text: str) -> str:
    """``text`` for an error message: control characters escaped, and cut to a length that a log line can bear."""
    return ascii(text if len(text) <= 60 else text[:57] + "...")
