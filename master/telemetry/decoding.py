"""Decodes and checks the messages of workers. Every rule about their content is enforced here, for all transports.

Readings are decoded as their records declare them: a field has the same name in the message and in the record, and its
annotation is the rule. Pure functions; they raise ``InvalidMessage`` or ``InvalidReading`` with the field's name, its
value and the rule.
"""

import re
import sys
from collections.abc import Callable, Sequence
from math import isfinite
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Generic, NoReturn, TypeVar

import msgspec
from msgspec.inspect import FloatType, IntType, Metadata, NoneType, StrType, StructType, Type, UnionType, VarTupleType
from msgspec.structs import replace

from fleetpulse.master.errors import InvalidMessage, InvalidReading
from fleetpulse.master.telemetry.records import (
    CustomKind,
    CustomLayout,
    CustomMetric,
    CustomSeries,
    Reading,
    Registration,
    Resources,
    TaskSupport,
)
from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import (
    CUSTOM_LABEL_NAME_RULE,
    CUSTOM_NAME_RULE,
    MAX_CUSTOM_BYTES,
    MAX_CUSTOM_HELP_LENGTH,
    MAX_CUSTOM_LABEL_VALUE_LENGTH,
    MAX_CUSTOM_LABELS,
    MAX_CUSTOM_METRICS,
    MAX_CUSTOM_SAMPLES,
    WORKER_ID_RULE,
    is_custom_label_name,
    is_custom_name,
    is_label_name,
    is_worker_id,
)

MAX_DEVICES = 64
"""Of each kind (filesystems, disks, interfaces, GPUs, collectors) in one heartbeat."""

MAX_RUNNING_TASKS = 1024
MAX_LABELS = 64
MAX_TEXT_LENGTH = 256
MAX_UNIX_SECONDS = 1e11
"""In the year 5138. More is a mistake, and would spoil a mean over times."""

R = TypeVar("R")

_CAN_RUN_TASKS = TaskSupport(available=True)
_INCARNATION_ID = re.compile(r"[A-Za-z0-9._-]{0,64}", re.ASCII)

# Machines have much in common: a known text is neither checked nor stored again.
_MAX_KNOWN_TEXTS = 2048
_known_texts: dict[str, str] = {}


# Identity


def check_worker_id(worker_id: str) -> None:
    """Raise ``InvalidMessage`` unless ``worker_id`` keeps the rule of the contract."""
    if not is_worker_id(worker_id):
        _refuse("worker_id", worker_id, WORKER_ID_RULE)


def check_incarnation_id(incarnation_id: str) -> None:
    """Raise ``InvalidMessage`` unless ``incarnation_id`` is empty or a short word."""
    if not _INCARNATION_ID.fullmatch(incarnation_id):
        _refuse("incarnation_id", incarnation_id, "at most 64 letters, digits, '._-'")


def decode_registration(message: pb.Register, peer_host: str = "") -> Registration:
    """Decode and check a ``Register``, which came from this host."""
    check_worker_id(message.worker_id)
    check_incarnation_id(message.incarnation_id)
    _check_most("labels", len(message.labels), MAX_LABELS, "entries")
    for name, value in message.labels.items():
        if not is_label_name(name):
            raise InvalidMessage(f"label name {_shown(name)} is refused: letters, digits and '_./-', 64 at most")
        _text("label value", value)
    return Registration(
        incarnation_id=message.incarnation_id,
        hostname=_text("hostname", message.hostname),
        version=_text("version", message.version),
        boot_time=_unix_time(message, "boot_time_unix_seconds"),
        capacity=replace(_CAPACITY.one(message.capacity), gpu_uuids=_gpu_uuids(message.capacity.gpu_uuids)),
        labels=MappingProxyType(dict(message.labels)),
        task_support=_task_support(message),
        peer_host=peer_host,
    )


def _gpu_uuids(uuids: Sequence[str]) -> tuple[str, ...]:
    if len(uuids) > MAX_DEVICES or len(set(uuids)) < len(uuids):
        raise InvalidMessage(f"capacity.gpu_uuids must be at most {MAX_DEVICES} different ones")
    return tuple(_text("capacity.gpu_uuids", uuid) for uuid in uuids)


def _task_support(message: pb.Register | pb.Heartbeat) -> TaskSupport | None:
    if not message.HasField("task_support"):
        return None
    support = message.task_support
    return _CAN_RUN_TASKS if support.available else TaskSupport(False, _text("task_support.reason", support.reason))


# Readings


def decode_heartbeat(message: pb.Heartbeat) -> Reading:
    """Decode and check a ``Heartbeat``, but for its worker_id and incarnation_id."""
    _unix_time(message, "sent_time_unix_seconds")
    fields: dict[str, Any] = dict(zip(_SCALARS.names, _SCALARS.values(message), strict=True))
    for name, decode in _PARTS:
        if part := getattr(message, name):
            fields[name] = decode(part)
    if custom := message.custom:
        fields["custom"] = _decode_custom(custom)
    return Reading(task_support=_task_support(message), **fields)


class _RecordDecoder(Generic[R]):
    """Decodes the numbers and texts of a message type as its record declares them.

    ``path`` is the place of the message in a heartbeat. The first field identifies one of a repeated message.
    """

    def __init__(self, record: Callable[..., R], declared: dict[str, Type], path: str = "") -> None:
        self._record, self._path = record, path
        self.names = tuple(declared)
        get = attrgetter(*self.names)
        self._get = get if len(self.names) > 1 else lambda message: (get(message),)
        # The driver may have come back with other indices than a GPU that is lost had.
        self._key = attrgetter("index", "uuid") if path == "gpus" else attrgetter(self.names[0])
        self._optional: list[tuple[int, str]] = []
        self._ranges: list[tuple[int, str, float, float]] = []
        self._texts: list[tuple[int, str, str | None]] = []
        self._limit = MAX_RUNNING_TASKS if path == "running_tasks" else MAX_DEVICES
        for position, (name, kind) in enumerate(declared.items()):
            plain, is_optional = _plain(kind)
            where = f"{path}.{name}".removeprefix(".")
            if isinstance(plain, StrType):
                self._texts.append((position, where, None if is_optional else ""))
            elif is_optional:
                self._optional.append((position, name))
            if isinstance(plain, FloatType):
                low = -sys.float_info.max if plain.ge is None else float(plain.ge)
                high = sys.float_info.max if plain.le is None else float(plain.le)
                self._ranges.append((position, where, low, high))

    def values(self, message: Any) -> Any:
        """The fields in the order of the record."""
        values: Any = self._get(message)
        for position, where, low, high in self._ranges:
            # A NaN fails every comparison, so it is refused here too.
            if not low <= values[position] <= high:
                _refuse_number(where, values[position], low, high)
        # Only a 0 may be absent in truth, and HasField costs more than the value.
        may_lack_numbers = self._optional and 0 in values
        if self._texts or may_lack_numbers:
            values = list(values)
        for position, where, empty in self._texts:
            text = values[position]
            values[position] = (_known_texts.get(text) or _text(where, text)) if text else empty
        if may_lack_numbers:
            for position, name in self._optional:
                if not values[position] and not message.HasField(name):
                    values[position] = None
        return values

    def one(self, message: Any) -> R:
        return self._record(*self.values(message))

    def many(self, items: Sequence[Any]) -> tuple[R, ...]:
        """The records of a repeated field."""
        _check_most(self._path, len(items), self._limit, "entries")
        # A slice is a list, which is walked much faster than protobuf's own sequence.
        records = tuple([self._record(*self.values(item)) for item in items[:]])
        if len(records) > 1 and len(set(map(self._key, records))) < len(records):
            # It would be one series with two values on /metrics.
            raise InvalidMessage(f"{self._path} has two entries for one {self.names[0]}")
        return records


def _plain(kind: Type) -> tuple[Type, bool]:
    """The type without its description and ``None``, and whether it may be ``None``."""
    if isinstance(kind, Metadata):
        return _plain(kind.type)
    if isinstance(kind, UnionType):
        (plain,) = (each for each in kind.types if not isinstance(each, NoneType))
        return _plain(plain)[0], True
    return kind, False


def _declared(record: type) -> dict[str, Type]:
    info = msgspec.inspect.type_info(record)
    assert isinstance(info, StructType)  # nosec B101 # for the type checker
    return {field.name: field.type for field in info.fields}


def _numbers(record: type) -> dict[str, Type]:
    return {name: kind for name, kind in _declared(record).items() if isinstance(_plain(kind)[0], IntType | FloatType)}


def _part_decoders() -> list[tuple[str, Callable[[Any], Any]]]:
    """Of each field of a reading that is a record, or a tuple of records."""
    decoders: list[tuple[str, Callable[[Any], Any]]] = []
    for name, kind in _declared(Reading).items():
        if isinstance(kind, StructType):
            decoders.append((name, _RecordDecoder(kind.cls, _declared(kind.cls), name).one))
        elif isinstance(kind, VarTupleType) and isinstance(kind.item_type, StructType):
            record = kind.item_type.cls
            decoders.append((name, _RecordDecoder(record, _declared(record), name).many))
    return decoders


_PARTS = _part_decoders()
_SCALARS = _RecordDecoder(Reading, _numbers(Reading))
_CAPACITY = _RecordDecoder(Resources, _numbers(Resources), "capacity")


# Custom metrics. Nothing about them is trusted: on ``/metrics`` they stand beside those of all other workers.

_KINDS: dict[int, CustomKind] = {
    pb.CUSTOM_TYPE_UNTYPED: "untyped",
    pb.CUSTOM_TYPE_GAUGE: "gauge",
    pb.CUSTOM_TYPE_COUNTER: "counter",
}

_LayoutKey = tuple[str, int, str, tuple[str, ...], tuple[tuple[str, ...], ...]]

_MAX_KNOWN_LAYOUTS = 2048
_MAX_KNOWN_BYTES = 4096
"""Of one layout. With the number of layouts it bounds the memory that workers can make the master use."""

_known_layouts: dict[_LayoutKey, CustomLayout] = {}
"""Everything but the numbers changes seldom, so it is checked once and remembered."""


def _decode_custom(items: Sequence[pb.CustomMetric]) -> tuple[CustomMetric, ...]:
    _check_most("custom", len(items), MAX_CUSTOM_METRICS, "entries")
    _check_most("custom.samples", sum(len(item.samples) for item in items), MAX_CUSTOM_SAMPLES, "entries in all")
    _check_most("custom", sum(item.ByteSize() for item in items), MAX_CUSTOM_BYTES, "bytes")
    metrics = tuple([_custom_metric(item) for item in items])
    if len({metric.layout.family for metric in metrics}) < len(metrics):
        _check_families(metrics)
    return metrics


def _custom_metric(item: pb.CustomMetric) -> CustomMetric:
    samples = item.samples[:]
    values = tuple([sample.value for sample in samples])
    for value in values:
        if not isfinite(value):
            raise InvalidReading(f"custom.samples.value of {item.name[:60]!a} is {value}; it must be a finite number")
    label_values = tuple([tuple(sample.label_values) for sample in samples])
    key = (item.name, item.type, item.help, tuple(item.label_names), label_values)
    layout = _known_layouts.get(key)
    if layout is None:
        layout = _custom_layout(*key)
        if len(_known_layouts) >= _MAX_KNOWN_LAYOUTS:
            _known_layouts.clear()
        if item.ByteSize() <= _MAX_KNOWN_BYTES:
            _known_layouts[key] = layout
    return CustomMetric(layout, values)


def _custom_layout(
    name: str, kind: int, text: str, label_names: tuple[str, ...], label_values: tuple[tuple[str, ...], ...]
) -> CustomLayout:
    if kind not in _KINDS:
        raise InvalidMessage(f"custom.type is {kind}; it must be one of {sorted(_KINDS)}")
    if not is_custom_name(name, is_counter=kind == pb.CUSTOM_TYPE_COUNTER):
        _refuse("custom.name", name, CUSTOM_NAME_RULE)
    _check_text("custom.help", text, MAX_CUSTOM_HELP_LENGTH)
    _check_most("custom.label_names", len(label_names), MAX_CUSTOM_LABELS, "entries")
    for label in label_names:
        if not is_custom_label_name(label):
            _refuse("custom.label_names", label, CUSTOM_LABEL_NAME_RULE)
    if len(set(label_names)) < len(label_names):
        raise InvalidMessage("custom.label_names has one name twice")
    series = tuple([_custom_series(label_names, values) for values in label_values])
    if len(set(series)) < len(series):
        raise InvalidMessage(f"custom.samples of {name} has two entries for one series")
    return CustomLayout(name, _KINDS[kind], text, series)


def _custom_series(names: tuple[str, ...], values: tuple[str, ...]) -> CustomSeries:
    if len(values) != len(names):
        raise InvalidMessage(f"custom.samples.label_values has {len(values)} entries for {len(names)} label_names")
    for value in values:
        _check_text("custom.samples.label_values", value, MAX_CUSTOM_LABEL_VALUE_LENGTH)
    # An empty label is none, for Prometheus.
    return tuple(sorted([(name, value) for name, value in zip(names, values, strict=True) if value]))


def _check_families(metrics: Sequence[CustomMetric]) -> None:
    """Entries of one name are one family: of one type, and without a series twice."""
    names: dict[str, tuple[str, str]] = {}
    seen: set[tuple[str, CustomSeries]] = set()
    for layout, _ in metrics:
        if names.setdefault(layout.family, (layout.name, layout.kind)) != (layout.name, layout.kind):
            raise InvalidMessage(f"custom has {layout.name} with two types")
        keys = {(layout.family, series) for series in layout.series}
        if not seen.isdisjoint(keys):
            raise InvalidMessage(f"custom.samples of {layout.name} has two entries for one series")
        seen |= keys


# Values


def _unix_time(message: Any, field: str) -> float | None:
    """The field's value, or ``None`` when the sender left it out."""
    value: float = getattr(message, field)
    if not 0.0 <= value <= MAX_UNIX_SECONDS:
        raise InvalidReading(f"{field} is {value}; it must be a Unix time in seconds, from 0 to {MAX_UNIX_SECONDS:.0f}")
    return value if value or message.HasField(field) else None


def _text(field: str, value: str) -> str:
    known = _known_texts.get(value)
    if known is None:
        _check_text(field, value, MAX_TEXT_LENGTH)
        known = value
        if len(_known_texts) < _MAX_KNOWN_TEXTS:
            _known_texts[value] = value
    return known


def _check_text(field: str, text: str, most: int) -> None:
    if len(text) > most or not text.isprintable():
        _refuse(field, text, f"at most {most} printable characters")


def _check_most(field: str, number: int, most: int, what: str) -> None:
    if number > most:
        raise InvalidMessage(f"{field} has {number} {what}; at most {most} are accepted")


def _refuse_number(field: str, value: float, low: float, high: float) -> NoReturn:
    if high < sys.float_info.max:
        rule = f"a number from {low:g} to {high:g}"
    else:
        rule = "a finite number, 0 or more" if low == 0.0 else "a finite number"
    raise InvalidReading(f"{field} is {value}; it must be {rule}")


def _refuse(field: str, text: str, rule: str) -> NoReturn:
    raise InvalidMessage(f"{field} {_shown(text)} is refused: it must be {rule}")


def _shown(text: str) -> str:
    """``text`` for an error message: control characters escaped, and cut to a length that fits a log line."""
    return ascii(text if len(text) <= 60 else text[:57] + "...")
