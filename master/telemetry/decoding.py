"""Decodes and checks the messages of workers. Every rule about their content is enforced here, for all transports.

Readings are decoded as their records declare them: a field has the same name in the message and in the record. Its rule
is in ``proto/fields.py``. Pure functions; they raise ``InvalidMessage`` or ``InvalidReading`` with the name of the
field, its value and the rule.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Generic, NoReturn, TypeVar

import msgspec
from msgspec.inspect import Metadata, NoneType, StructType, Type, UnionType, VarTupleType

from fleetpulse.master.errors import InvalidMessage, InvalidReading
from fleetpulse.master.telemetry.readings import (
    CustomKind,
    CustomLayout,
    CustomMetric,
    CustomSeries,
    Reading,
    TaskSupport,
)
from fleetpulse.master.telemetry.records import Registration, Resources
from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.fields import (
    COUNT,
    RULES,
    UNIX_SECONDS,
    Choice,
    Items,
    Labels,
    Number,
    Rule,
    Text,
    custom_metric_problems,
    custom_value_problem,
    shown,
)
from fleetpulse.proto.rules import (
    INCARNATION_ID_RULE,
    MAX_CUSTOM_BYTES,
    MAX_CUSTOM_METRICS,
    MAX_CUSTOM_SAMPLES,
    WORKER_ID_RULE,
    is_incarnation_id,
    is_worker_id,
)

R = TypeVar("R")

_CAN_RUN_TASKS = TaskSupport(available=True)

# Machines have much in common: a known text is neither checked nor stored again.
_MAX_KNOWN_TEXTS = 2048
_known_texts: dict[Text, dict[str, str]] = {}
"""By the rule that they keep."""


# Identity


def check_worker_id(worker_id: str) -> None:
    """Raise ``InvalidMessage`` unless ``worker_id`` keeps the rule of the contract."""
    if not is_worker_id(worker_id):
        _refuse("worker_id", worker_id, WORKER_ID_RULE)


def check_incarnation_id(incarnation_id: str) -> None:
    """Raise ``InvalidMessage`` unless ``incarnation_id`` is empty or a short word."""
    if not is_incarnation_id(incarnation_id):
        _refuse("incarnation_id", incarnation_id, INCARNATION_ID_RULE)


def decode_registration(message: pb.Register, peer_host: str = "") -> Registration:
    """Decode and check a ``Register``, which came from this host."""
    check_worker_id(message.worker_id)
    check_incarnation_id(message.incarnation_id)
    labels = _labels(message.labels)
    return Registration(
        incarnation_id=message.incarnation_id,
        hostname=_text("hostname", message.hostname, _REGISTER["hostname"]),
        version=_text("version", message.version, _REGISTER["version"]),
        boot_time=_unix_time(message, "boot_time_unix_seconds"),
        capacity=_CAPACITY.one(message.capacity),
        labels=MappingProxyType(labels),
        task_support=_task_support(message),
        peer_host=peer_host,
    )


def _labels(labels: Mapping[str, str]) -> dict[str, str]:
    rule = _REGISTER["labels"]
    assert isinstance(rule, Labels)  # nosec B101 # for the type checker
    _check_most("labels", len(labels), rule.most, "entries")
    for name, value in labels.items():
        if not rule.name.fits(name):
            _refuse("label name", name, rule.name.words)
        _text("label value", value, rule.value)
    return dict(labels)


def _task_support(message: pb.Register | pb.Heartbeat) -> TaskSupport | None:
    if not message.HasField("task_support"):
        return None
    support = message.task_support
    return (
        _CAN_RUN_TASKS
        if support.available
        else TaskSupport(False, _text("task_support.reason", support.reason, RULES["TaskSupport"]["reason"]))
    )


# Readings


def decode_heartbeat(message: pb.Heartbeat) -> Reading:
    """Decode and check a ``Heartbeat``, but for its worker_id and incarnation_id."""
    _unix_time(message, "sent_time_unix_seconds")
    fields: dict[str, Any] = dict(zip(_SCALARS.names, _SCALARS.values(message), strict=True))
    has_field: Callable[[Any], bool] = message.HasField
    for name, is_optional, decode in _PARTS:
        if (part := getattr(message, name)) and not (is_optional and not has_field(name)):
            fields[name] = decode(part)
    if custom := message.custom:
        fields["custom"] = _decode_custom(custom)
    return Reading(task_support=_task_support(message), **fields)


class _RecordDecoder(Generic[R]):
    """Decodes a message type into its record.

    ``path`` is the place of the message in a heartbeat; ``rule`` that of the field, if it is repeated.
    """

    def __init__(self, record: Callable[..., R], declared: dict[str, Type], path: str, rule: Rule | None) -> None:
        self._record, self._path = record, path
        self.names = tuple(declared)
        get = attrgetter(*self.names)
        self._get = get if len(self.names) > 1 else lambda message: (get(message),)
        self._most, self._key_names = (rule.most, rule.key) if isinstance(rule, Items) else (0, ())
        self._key = attrgetter(*self._key_names) if self._key_names else None
        self._optional: list[tuple[int, str]] = []
        self._ranges: list[tuple[int, str, Number]] = []
        self._texts: list[tuple[int, str, Text, dict[str, str], str | None]] = []
        self._choices: list[tuple[int, Choice, str | None]] = []
        self._parts: list[tuple[int, str, bool, Callable[[Any], Any]]] = []
        message = _MESSAGES.get(record.__name__, record.__name__)
        for position, (name, kind) in enumerate(declared.items()):
            self._add(position, name, kind, RULES[message].get(name))

    def _add(self, position: int, name: str, kind: Type, rule: Rule | None) -> None:
        plain, is_optional = _plain(kind)
        where = f"{self._path}.{name}".removeprefix(".")
        if isinstance(rule, Text):
            known = _known_texts.setdefault(rule, {})
            self._texts.append((position, where, rule, known, None if is_optional else ""))
        elif isinstance(rule, Choice):
            self._choices.append((position, rule, None if is_optional else ""))
        elif isinstance(plain, StructType):
            self._parts.append((position, name, is_optional, _record_decoder(plain, where, rule).one))
        elif isinstance(plain, VarTupleType) and isinstance(plain.item_type, StructType):
            self._parts.append((position, name, False, _record_decoder(plain.item_type, where, rule).many))
        elif isinstance(rule, Items):
            self._parts.append((position, name, False, _TextsDecoder(where, rule).many))
        else:
            if is_optional:
                self._optional.append((position, name))
            # Every whole number of the contract is a count, and its type is the range.
            if isinstance(rule, Number) and rule is not COUNT:
                self._ranges.append((position, where, rule))

    def values(self, message: Any) -> Any:
        """The fields in the order of the record."""
        values: Any = self._get(message)
        for position, where, rule in self._ranges:
            # A NaN fails every comparison, so it is refused here too.
            if not rule[0] <= values[position] <= rule[1]:
                _refuse_number(where, values[position], rule)
        # Only a 0 may be absent in truth, and HasField costs more than the value.
        may_lack_numbers = self._optional and 0 in values
        if self._texts or self._parts or self._choices or may_lack_numbers:
            values = list(values)
        for position, where, text_rule, known, empty in self._texts:
            text = values[position]
            values[position] = (known.get(text) or _text(where, text, text_rule)) if text else empty
        for position, choice, empty in self._choices:
            word = values[position]
            values[position] = (word if word in choice.options else choice.otherwise) or empty
        for position, name, is_optional, decode in self._parts:
            values[position] = None if is_optional and not message.HasField(name) else decode(values[position])
        if may_lack_numbers:
            for position, name in self._optional:
                if not values[position] and not message.HasField(name):
                    values[position] = None
        return values

    def one(self, message: Any) -> R:
        return self._record(*self.values(message))

    def many(self, items: Sequence[Any]) -> tuple[R, ...]:
        """The records of a repeated field."""
        _check_most(self._path, len(items), self._most, "entries")
        # A slice is a list, which is walked much faster than protobuf's own sequence.
        records = tuple([self._record(*self.values(item)) for item in items[:]])
        if self._key is not None and len(records) > 1 and len(set(map(self._key, records))) < len(records):
            # It would be one series with two values on /metrics.
            raise InvalidMessage(f"{self._path} has two entries for one {' and '.join(self._key_names)}")
        return records


class _TextsDecoder:
    """Decodes a repeated text."""

    def __init__(self, where: str, rule: Items) -> None:
        assert isinstance(rule.of, Text)  # nosec B101 # for the type checker
        self._where, self._most, self._rule = where, rule.most, rule.of

    def many(self, texts: Sequence[str]) -> tuple[str, ...]:
        if not texts:
            return ()
        _check_most(self._where, len(texts), self._most, "entries")
        if self._rule.is_name and len(set(texts)) < len(texts):
            raise InvalidMessage(f"{self._where} has one entry twice")
        return tuple([_text(self._where, text, self._rule) for text in texts])


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


def _record_decoder(kind: StructType, path: str, rule: Rule | None) -> _RecordDecoder[Any]:
    return _RecordDecoder(kind.cls, _declared(kind.cls), path, rule)


def _is_part(kind: Type) -> bool:
    plain = _plain(kind)[0]
    return isinstance(plain, StructType | VarTupleType)


def _part_decoders() -> list[tuple[str, bool, Callable[[Any], Any]]]:
    """Of each field of a reading that is a record, or a tuple."""
    decoders: list[tuple[str, bool, Callable[[Any], Any]]] = []
    for name, kind in _declared(Reading).items():
        rule = RULES["Heartbeat"].get(name)
        plain, is_optional = _plain(kind)
        if name in _DECODED_APART or not _is_part(kind):
            continue
        if isinstance(plain, StructType):
            decoders.append((name, is_optional, _record_decoder(plain, name, rule).one))
        elif isinstance(plain, VarTupleType) and isinstance(plain.item_type, StructType):
            decoders.append((name, False, _record_decoder(plain.item_type, name, rule).many))
        elif isinstance(rule, Items):
            decoders.append((name, False, _TextsDecoder(name, rule).many))
    return decoders


_DECODED_APART = frozenset({"task_support", "custom"})
_REGISTER = RULES["Register"]
_MESSAGES = {"Reading": "Heartbeat", "Resources": "Capacity"}
"""By the name of a record, that of its message where it has another one."""

_PARTS = _part_decoders()
_SCALARS = _RecordDecoder(
    Reading, {name: kind for name, kind in _declared(Reading).items() if not _is_part(kind)}, "", None
)
_CAPACITY: _RecordDecoder[Resources] = _RecordDecoder(Resources, _declared(Resources), "capacity", None)


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
        # A counter below zero costs nothing but itself: /metrics leaves it out.
        if (problem := custom_value_problem(item.name, pb.CUSTOM_TYPE_UNTYPED, value)) is not None:
            raise InvalidReading(problem)
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
    for problem in custom_metric_problems(name, kind, text, label_names, label_values):
        raise InvalidMessage(problem)
    # An empty label is none, for Prometheus.
    series = tuple(
        [
            tuple(sorted([(label, value) for label, value in zip(label_names, values, strict=True) if value]))
            for values in label_values
        ]
    )
    return CustomLayout(name, _KINDS[kind], text, series)


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
    if not UNIX_SECONDS.fits(value):
        _refuse_number(field, value, UNIX_SECONDS)
    return value if value or message.HasField(field) else None


def _text(field: str, value: str, rule: Rule) -> str:
    """The text, which is one of ``rule`` (a ``Text``)."""
    assert isinstance(rule, Text)  # nosec B101 # for the type checker
    known_texts = _known_texts.setdefault(rule, {})
    known = known_texts.get(value)
    if known is None:
        if not rule.fits(value):
            _refuse(field, value, rule.words)
        known = value
        if len(known_texts) < _MAX_KNOWN_TEXTS:
            known_texts[value] = value
    return known


def _check_most(field: str, number: int, most: int, what: str) -> None:
    if number > most:
        raise InvalidMessage(f"{field} has {number} {what}; at most {most} are accepted")


def _refuse_number(field: str, value: float, rule: Number) -> NoReturn:
    raise InvalidReading(f"{field} is {value}; it must be {rule.words}")


def _refuse(field: str, text: str, rule: str) -> NoReturn:
    raise InvalidMessage(f"{field} {shown(text)} is refused: it must be {rule}")
