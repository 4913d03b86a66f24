"""Makes what a worker reads fit the rules of the contract (``fields.py``), so that nothing that it says is refused.

    a name or text     what is not printable is written as ``\\xNN`` (a byte that is no UTF-8), ``\\uNNNN`` or
                       ``\\UNNNNNNNN``; what is too long is cut, with a mark at the end
    a number           absent when it is not finite or out of its range
    a list             cut to its limit; of two entries with one name the second is numbered, of others it is left out

Pure. Messages are made with ``make``, which takes raw values; ``clean`` is the last look at a whole message.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from operator import attrgetter
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from fleetpulse.proto.fields import (
    RULES,
    Choice,
    Custom,
    Items,
    Labels,
    Number,
    Rule,
    Text,
    Word,
    custom_metric_problems,
    custom_value_problem,
    visible,
)
from fleetpulse.proto.rules import MAX_CUSTOM_BYTES, MAX_CUSTOM_SAMPLES

M = TypeVar("M", bound=Message)

_CUT = "…"
_BYTES = range(0xDC80, 0xDD00)
"""Where Python puts bytes that are no UTF-8 (PEP 383)."""

_LOOKS_ESCAPED = re.compile(r"\\(?=x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")
_DIGEST_LENGTH = 8
_IDENTITIES = {
    message: [
        (name, rule)
        for name, rule in rules.items()
        if isinstance(rule, Word) or (isinstance(rule, Number) and rule.low > 0)
    ]
    for message, rules in RULES.items()
}
_LARGEST = {FieldDescriptor.TYPE_UINT32: 2**32 - 1, FieldDescriptor.TYPE_UINT64: 2**64 - 1}


def clean_text(text: str, rule: Text = Text()) -> str:  # noqa: B008 - immutable
    """The text, escaped and cut to fit ``rule``. One that fits is returned as it is."""
    if rule.fits(text):
        return text
    # More than a few thousand characters are never needed.
    pieces = [_escaped(character) for character in text[: rule.max_length + 1]]
    return _joined(pieces, rule.max_length, _CUT)


def clean_name(text: str, rule: Text = Text(is_name=True)) -> str:  # noqa: B008 - immutable
    """As ``clean_text``, and two names stay two: ``original_name`` gives back one that was not cut, and a cut one ends
    with a digest of it.
    """
    marked = _LOOKS_ESCAPED.sub(r"\\x5c", text)
    if rule.fits(marked):
        return marked
    pieces = [_escaped(character) for character in marked]
    digest = hashlib.blake2s(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_LENGTH // 2).hexdigest()
    return _joined(pieces, rule.max_length, f"{_CUT}{digest}")


def original_name(name: str) -> str:
    """What ``clean_name`` was given, bytes that are no UTF-8 as Python has them in names, if it cut nothing."""

    def character(match: re.Match[str]) -> str:
        code = int(match[1] or match[2] or match[3], 16)
        return chr(code + 0xDC00) if match[1] and code >= 0x80 else chr(code)

    return re.sub(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))", character, name)


def _escaped(character: str) -> str:
    if visible(character):
        return character
    code = ord(character)
    if code in _BYTES:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _joined(pieces: Iterable[str], most: int, mark: str) -> str:
    """The pieces, or as many whole ones as fit, with the mark."""
    kept: list[str] = []
    length = room = 0
    for piece in pieces:
        length += len(piece)
        if length > most:
            return "".join(kept[:room]) + mark
        kept.append(piece)
        if length <= most - len(mark):
            room = len(kept)
    return "".join(kept)


def make(kind: type[M], **values: Any) -> M:
    """A message of this type with these values. ``None``, and a number against its rule, are left out; a text is
    escaped and cut. Names may have the surrogates of the file system's encoding.
    """
    message = kind()
    rules = RULES[message.DESCRIPTOR.name]
    for name, value in values.items():
        if value is not None:
            _set(message, name, value, rules.get(name))
    return message


def _set(message: Message, name: str, value: Any, rule: Rule | None) -> None:
    field = message.DESCRIPTOR.fields_by_name[name]
    if isinstance(rule, Items) and isinstance(rule.of, Text):
        getattr(message, name).extend([_fitting(each, rule.of) for each in value])
    elif isinstance(rule, Items) and isinstance(rule.of, Word):
        getattr(message, name).extend([each for each in value if rule.of.fits(each)])
    elif isinstance(rule, Labels):
        fitting = {each: clean_text(text, rule.value) for each, text in value.items() if rule.name.fits(each)}
        getattr(message, name).update(fitting)
    elif field.is_repeated:
        getattr(message, name).extend(value)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        getattr(message, name).CopyFrom(value)
    elif isinstance(rule, Text):
        setattr(message, name, _fitting(value, rule))
    elif isinstance(rule, Choice):
        setattr(message, name, value if value in rule.options else rule.otherwise)
    elif isinstance(rule, Word):
        if rule.fits(value):
            setattr(message, name, value)
    elif not isinstance(rule, Number):
        setattr(message, name, value)
    elif rule.fits(value) and value <= _LARGEST.get(field.type, value):
        setattr(message, name, value if field.type == FieldDescriptor.TYPE_DOUBLE else int(value))


def _fitting(text: str, rule: Text) -> str:
    return clean_name(text, rule) if rule.is_name else clean_text(text, rule)


def clean(message: Message) -> list[str]:
    """Makes a ``Register`` or a ``Heartbeat`` fit in place. Returns what was changed, each with the field's place.

    What fits already is not touched. A worker id or an incarnation id against its rule stays: who sends the message
    must choose another one. Takes some 10 us for each device.
    """
    changes: list[str] = []
    _clean(message, "", changes)
    return changes


def _clean(message: Message, path: str, changes: list[str]) -> None:
    rules = RULES[message.DESCRIPTOR.name]
    for field, value in message.ListFields():
        rule, where = rules.get(field.name), f"{path}.{field.name}".removeprefix(".")
        if isinstance(rule, Text):
            if not rule.fits(value):
                setattr(message, field.name, _fitting(value, rule))
                changes.append(where)
        elif isinstance(rule, Number):
            if not rule.fits(value):
                message.ClearField(field.name)
                changes.append(where)
        elif isinstance(rule, Choice):
            if value not in rule.options:
                setattr(message, field.name, rule.otherwise)
                changes.append(where)
        elif isinstance(rule, Items):
            _clean_items(value, rule, where, changes)
        elif isinstance(rule, Labels):
            _clean_labels(value, rule, where, changes)
        elif isinstance(rule, Custom):
            _clean_custom(value, rule, where, changes)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            _clean(value, where, changes)


def _clean_items(items: Any, rule: Items, where: str, changes: list[str]) -> None:
    if len(items) > rule.most:
        changes.append(f"{where}: {len(items) - rule.most} of {len(items)} left out")
        del items[rule.most :]
    if isinstance(rule.of, Text):
        fitting = [text if rule.of.fits(text) else _fitting(text, rule.of) for text in items]
        fitting = list(dict.fromkeys(fitting)) if rule.of.is_name else fitting
        if fitting != list(items):
            changes.append(where)
            items[:] = fitting
    elif rule.of is None:
        for position in reversed(range(len(items))):
            if _is_nobody(items[position]):
                changes.append(f"{where}: one left out")
                del items[position]
            else:
                _clean(items[position], where, changes)
        if rule.key and len(items) > 1:
            _tell_apart(items, rule.key, where, changes)


def _is_nobody(item: Message) -> bool:
    """Whether a field that identifies the entry breaks its rule."""
    return any(not rule.fits(getattr(item, name)) for name, rule in _IDENTITIES[item.DESCRIPTOR.name])


def _tell_apart(items: Any, key: tuple[str, ...], where: str, changes: list[str]) -> None:
    """Numbers the second of two equal names; leaves out the second of two entries with another equal key."""
    get = attrgetter(*key)
    keys: list[Any] = [get(item) for item in items]
    if len(set(keys)) == len(keys):
        return
    changes.append(f"{where}.{' and '.join(key)}: two entries are the same")
    rule = RULES[items[0].DESCRIPTOR.name][key[0]]
    name_rule = rule if len(key) == 1 and isinstance(rule, Text) and rule.is_name else None
    taken: set[Any] = set(keys)
    repeated: list[int] = []
    counts = Counter[Any]()
    for position, each in enumerate(keys):
        counts[each] += 1
        if counts[each] > 1 and name_rule is not None:
            name = _numbered(each, counts[each], taken, name_rule.max_length)
            taken.add(name)
            setattr(items[position], key[0], name)
        elif counts[each] > 1:
            repeated.append(position)
    for position in reversed(repeated):
        del items[position]


def _numbered(name: str, number: int, taken: set[Any], most: int) -> str:
    while True:
        mark = f"#{number}"
        candidate = name[: most - len(mark)] + mark
        if candidate not in taken:
            return candidate
        number += 1


def _clean_labels(labels: Any, rule: Labels, where: str, changes: list[str]) -> None:
    for name in list(labels):
        if not rule.name.fits(name) or len(labels) > rule.most:
            del labels[name]
            changes.append(where)
        elif not rule.value.fits(labels[name]):
            labels[name] = clean_text(labels[name], rule.value)
            changes.append(where)


def _clean_custom(metrics: Any, rule: Custom, where: str, changes: list[str]) -> None:
    """Leaves out the metrics that break a rule, by themselves or together with those before."""
    budget = _CustomBudget(rule.most)
    kept = [metric for metric in metrics if budget.takes(metric)]
    if len(kept) < len(metrics):
        changes.append(f"{where}: {len(metrics) - len(kept)} of {len(metrics)} left out")
        kept = [type(metric).FromString(metric.SerializeToString()) for metric in kept]
        del metrics[:]
        metrics.extend(kept)


class _CustomBudget:
    """What the custom metrics of one heartbeat may have in all."""

    def __init__(self, most: int) -> None:
        self._metrics, self._samples, self._bytes = most, MAX_CUSTOM_SAMPLES, MAX_CUSTOM_BYTES
        self._types: dict[str, tuple[str, int]] = {}
        self._series: set[tuple[str, tuple[tuple[str, str], ...]]] = set()

    def takes(self, metric: Any) -> bool:
        """Whether the metric fits; counts it in if so."""
        values = [tuple(sample.label_values) for sample in metric.samples]
        typed = metric.name, metric.type
        if any(custom_metric_problems(*typed, metric.help, metric.label_names, values)):
            return False
        if any(custom_value_problem(*typed, sample.value) for sample in metric.samples):
            return False
        family = metric.name.removesuffix("_total")
        series = {
            (family, tuple(sorted((label, text) for label, text in zip(metric.label_names, each, strict=True) if text)))
            for each in values
        }
        size = metric.ByteSize()
        if self._types.get(family, typed) != typed or not self._series.isdisjoint(series):
            return False
        if self._metrics < 1 or self._samples < len(values) or self._bytes < size:
            return False
        self._metrics, self._samples, self._bytes = self._metrics - 1, self._samples - len(values), self._bytes - size
        self._types[family] = typed
        self._series |= series
        return True
