"""The rule of every field of ``Register`` and ``Heartbeat``: the master checks by it, and workers make messages fit.

A field is declared in three places: the contract, here, and in the master's records. A test fails for a field without
a rule. Pure; ``cleaning.py`` makes texts and numbers fit.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from types import MappingProxyType
from typing import NamedTuple

from fleetpulse.proto.rules import (
    CUSTOM_LABEL_NAME_PATTERN,
    CUSTOM_LABEL_NAME_RULE,
    CUSTOM_NAME_PATTERN,
    CUSTOM_NAME_RULE,
    INCARNATION_ID_PATTERN,
    INCARNATION_ID_RULE,
    LABEL_NAME_PATTERN,
    LABEL_NAME_RULE,
    MAX_CUSTOM_HELP_LENGTH,
    MAX_CUSTOM_LABEL_VALUE_LENGTH,
    MAX_CUSTOM_LABELS,
    MAX_CUSTOM_METRICS,
    MAX_CUSTOM_SAMPLES,
    TASK_ID_PATTERN,
    TASK_ID_RULE,
    WORKER_ID_PATTERN,
    WORKER_ID_RULE,
    is_custom_label_name,
    is_custom_name,
)

MAX_TEXT_LENGTH = 256
"""Characters."""

MAX_DEVICES = 64
"""Of each kind (filesystems, disks, interfaces, GPUs, collectors) in one heartbeat."""

MAX_GPU_PROCESSES = 16
"""Of one GPU; those that take the most memory."""

MAX_GPU_INSTANCES = 16
MAX_THROTTLE_REASONS = 8
MAX_RUNNING_TASKS = 1024
MAX_CORES = 1024
MAX_LABELS = 64
MAX_HELD_ATTEMPTS = 10_000
MAX_UNIX_SECONDS = 1e11
"""In the year 5138. More is a mistake, and would spoil a mean over times."""

# The same on every version of Python: `str.isprintable` follows the Unicode version, which worker and master may not
# have in common. A test compares it with the categories Cc, Cf, Co, Cs, Zl, Zp and Zs but for the space.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\xa0\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u1680\u180e\u2000-\u200f\u2028-\u202f"
    "\u205f-\u206f\u3000\ud800-\uf8ff\ufdd0-\ufdef\ufeff\ufff0-\ufffb\ufffe\uffff\U000110bd\U000110cd"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff\U000f0000-\U0010ffff]"
)


class Text(NamedTuple):
    """Visible characters and spaces."""

    max_length: int = MAX_TEXT_LENGTH
    is_name: bool = False
    """Names a device. Two names must stay two when they are cut or escaped."""

    def fits(self, text: str) -> bool:
        """Whether ``text`` keeps the rule."""
        return len(text) <= self.max_length and is_visible(text)

    @property
    def words(self) -> str:
        """The rule for people."""
        return f"at most {self.max_length} printable characters"


class Word(NamedTuple):
    """A text of few characters, which is refused and never changed."""

    pattern: str
    words: str
    """The rule for people."""

    def fits(self, text: str) -> bool:
        """Whether ``text`` keeps the rule."""
        return re.fullmatch(self.pattern, text) is not None


class Choice(NamedTuple):
    """One of a few words. Another one comes from a newer worker and means ``otherwise``."""

    options: tuple[str, ...]
    otherwise: str


class Number(NamedTuple):
    """A finite number from ``low`` to ``high``. Out of this range it is no reading."""

    low: float
    high: float

    def fits(self, value: float) -> bool:
        """Whether ``value`` keeps the rule. NaN does not."""
        return self.low <= value <= self.high

    @property
    def words(self) -> str:
        """The rule for people."""
        if self == UNIX_SECONDS:
            return f"a Unix time in seconds, from 0 to {MAX_UNIX_SECONDS:.0f}"
        if self.high < sys.float_info.max:
            return f"a number from {self.low:g} to {self.high:g}"
        return "a finite number, 0 or more" if self.low == 0.0 else "a finite number"


class Items(NamedTuple):
    """A list of at most so many entries."""

    most: int
    key: tuple[str, ...] = ()
    """The fields of each entry, a message, in which no two are equal."""

    of: Text | Word | Number | None = None
    """The rule of each entry that is no message. No two of a ``Text`` with ``is_name`` may be equal."""


class Labels(NamedTuple):
    """A map of names and texts."""

    most: int
    name: Word
    value: Text


class Custom(NamedTuple):
    """Custom metrics, whose rules concern several fields at once: ``custom_metric_problems``."""

    most: int = MAX_CUSTOM_METRICS


Rule = Text | Word | Choice | Number | Items | Labels | Custom

TEXT = Text()
NAME = Text(is_name=True)
COUNT = Number(0, 2**64 - 1)
"""A whole number; those of 32 bits end at 2^32 - 1 by their type."""

AMOUNT = Number(0.0, sys.float_info.max)
ANY_NUMBER = Number(-sys.float_info.max, sys.float_info.max)
PERCENT = Number(0.0, 100.0)
UNIX_SECONDS = Number(0.0, MAX_UNIX_SECONDS)

_WORKER_ID = Word(WORKER_ID_PATTERN, WORKER_ID_RULE)
_INCARNATION_ID = Word(INCARNATION_ID_PATTERN, INCARNATION_ID_RULE)
LABELS = Labels(MAX_LABELS, Word(LABEL_NAME_PATTERN, LABEL_NAME_RULE), TEXT)
_CUSTOM_HELP = Text(MAX_CUSTOM_HELP_LENGTH)
_LABEL_VALUE = Text(MAX_CUSTOM_LABEL_VALUE_LENGTH)

RULES: Mapping[str, Mapping[str, Rule]] = MappingProxyType(
    {
        "Register": {
            "worker_id": _WORKER_ID,
            "incarnation_id": _INCARNATION_ID,
            "hostname": TEXT,
            "version": TEXT,
            "boot_time_unix_seconds": UNIX_SECONDS,
            "labels": LABELS,
            "attempts_held": Items(MAX_HELD_ATTEMPTS),
        },
        "AttemptId": {"task_id": Word(TASK_ID_PATTERN, TASK_ID_RULE), "attempt": Number(1, 2**32 - 1)},
        "Capacity": {
            "cpu_cores": AMOUNT,
            "memory_bytes": COUNT,
            "gpu_count": COUNT,
            "gpu_uuids": Items(MAX_DEVICES, of=NAME),
        },
        "TaskSupport": {"reason": TEXT},
        "Heartbeat": {
            "worker_id": _WORKER_ID,
            "incarnation_id": _INCARNATION_ID,
            "sequence_number": COUNT,
            "sent_time_unix_seconds": UNIX_SECONDS,
            "filesystems": Items(MAX_DEVICES, ("mountpoint",)),
            "disk_devices": Items(MAX_DEVICES, ("device",)),
            "network_interfaces": Items(MAX_DEVICES, ("interface",)),
            "uptime_seconds": AMOUNT,
            "gpus": Items(MAX_DEVICES, ("index", "uuid")),
            "running_tasks": Items(MAX_RUNNING_TASKS, ("task_id",)),
            "collectors": Items(MAX_DEVICES, ("collector",)),
            "engine_failures": COUNT,
            "boot_time_unix_seconds": UNIX_SECONDS,
            "sensors": Items(MAX_DEVICES, ("sensor",)),
            "cores": Items(MAX_CORES, ("core",)),
            "systemd_failed_units": COUNT,
            "custom": Custom(),
            "left_out": Items(MAX_DEVICES, ("collector",)),
        },
        "Cpu": {"usage_percent": PERCENT, "logical_cores": COUNT},
        "Memory": {
            "used_bytes": COUNT,
            "size_bytes": COUNT,
            "swap_used_bytes": COUNT,
            "swap_size_bytes": COUNT,
        },
        "Load": {"load1": AMOUNT, "load5": AMOUNT, "load15": AMOUNT},
        "Pressure": {
            f"{name}_{unit}": rule
            for name in ("cpu_waiting", "memory_waiting", "memory_stalled", "io_waiting", "io_stalled")
            for unit, rule in (("percent", PERCENT), ("seconds", AMOUNT))
        },
        "Core": {"core": COUNT, "usage_percent": PERCENT, "frequency_hertz": AMOUNT},
        "Sensor": {"sensor": NAME, "temperature_celsius": ANY_NUMBER, "fan_rpm": AMOUNT},
        "Filesystem": {
            "mountpoint": NAME,
            "used_bytes": COUNT,
            "size_bytes": COUNT,
            "available_bytes": COUNT,
            "inodes": COUNT,
            "inodes_free": COUNT,
            "device": TEXT,
            "fstype": TEXT,
            "state": Choice(("", "ok", "error", "read_only"), otherwise=""),
            "state_reason": TEXT,
        },
        "DiskDevice": {
            "device": NAME,
            "read_bytes": COUNT,
            "written_bytes": COUNT,
            "size_bytes": COUNT,
            "state": Choice(("", "ok", "error"), otherwise=""),
            "state_reason": TEXT,
        },
        "NetworkInterface": {"interface": NAME, "received_bytes": COUNT, "transmitted_bytes": COUNT},
        "Gpu": {
            "index": COUNT,
            "uuid": TEXT,
            "name": TEXT,
            "utilization_percent": PERCENT,
            "memory_used_bytes": COUNT,
            "memory_size_bytes": COUNT,
            "temperature_celsius": ANY_NUMBER,
            "power_watts": AMOUNT,
            "state": TEXT,
            "state_reason": TEXT,
            "power_limit_watts": AMOUNT,
            "clock_hertz": AMOUNT,
            "memory_clock_hertz": AMOUNT,
            "encoder_utilization_percent": PERCENT,
            "decoder_utilization_percent": PERCENT,
            "throttle_reasons": Items(MAX_THROTTLE_REASONS, of=TEXT),
            "ecc_corrected_errors": COUNT,
            "ecc_uncorrected_errors": COUNT,
            "last_xid": COUNT,
            "nvlink_errors": COUNT,
            "processes": Items(MAX_GPU_PROCESSES, ("pid",)),
            "process_count": COUNT,
            "instances": Items(MAX_GPU_INSTANCES, ("uuid",)),
            "vendor": TEXT,
        },
        "GpuProcess": {
            "pid": COUNT,
            "user": TEXT,
            "command": TEXT,
            "memory_used_bytes": COUNT,
        },
        "GpuInstance": {
            "uuid": TEXT,
            "name": TEXT,
            "gpu": COUNT,
            "memory_used_bytes": COUNT,
            "memory_size_bytes": COUNT,
        },
        "RunningTask": {
            "task_id": TEXT,
            "attempt": COUNT,
            "cpu_usage_percent": AMOUNT,
            "memory_used_bytes": COUNT,
        },
        "CollectorReport": {"collector": NAME, "duration_seconds": AMOUNT, "error": TEXT, "age_seconds": AMOUNT},
        "LeftOut": {"collector": NAME, "count": COUNT},
        "CustomMetric": {
            "name": Word(CUSTOM_NAME_PATTERN, CUSTOM_NAME_RULE),
            "help": _CUSTOM_HELP,
            "label_names": Items(MAX_CUSTOM_LABELS, of=Word(CUSTOM_LABEL_NAME_PATTERN, CUSTOM_LABEL_NAME_RULE)),
            "samples": Items(MAX_CUSTOM_SAMPLES),
        },
        "CustomSample": {
            "label_values": Items(MAX_CUSTOM_LABELS, of=_LABEL_VALUE),
            "value": ANY_NUMBER,
        },
    }
)
"""By the names of the message and of the field. Fields that are messages, enums and truth values need no rule."""


def is_visible(text: str) -> bool:
    """Whether ``text`` has only visible characters and spaces."""
    return text.isprintable() or _UNSAFE.search(text) is None


def visible(character: str) -> bool:
    """Whether every version of Python takes this character for a visible one."""
    return character.isprintable() and _UNSAFE.match(character) is None


COUNTER = 2
"""``CUSTOM_TYPE_COUNTER``; the other types are below it."""


def custom_metric_problems(
    name: str, kind: int, text: str, label_names: Sequence[str], label_values: Sequence[Sequence[str]]
) -> Iterator[str]:
    """What is wrong with a custom metric but for its numbers; nothing with a valid one."""
    if not 0 <= kind <= COUNTER:
        yield f"custom.type is {kind}; it must be one of [0, 1, 2]"
    if not is_custom_name(name, is_counter=kind == COUNTER):
        yield f"custom.name {shown(name)} is refused: it must be {CUSTOM_NAME_RULE}"
    if not _CUSTOM_HELP.fits(text):
        yield f"custom.help {shown(text)} is refused: it must be {_CUSTOM_HELP.words}"
    if len(label_names) > MAX_CUSTOM_LABELS:
        yield f"custom.label_names has {len(label_names)} entries; at most {MAX_CUSTOM_LABELS} are accepted"
    for label in label_names:
        if not is_custom_label_name(label):
            yield f"custom.label_names {shown(label)} is refused: it must be {CUSTOM_LABEL_NAME_RULE}"
    if len(set(label_names)) < len(label_names):
        yield "custom.label_names has one name twice"
    for values in label_values:
        if len(values) != len(label_names):
            yield f"custom.samples.label_values has {len(values)} entries for {len(label_names)} label_names"
        for value in values:
            if not _LABEL_VALUE.fits(value):
                yield f"custom.samples.label_values {shown(value)} is refused: it must be {_LABEL_VALUE.words}"
    if len(set(map(tuple, label_values))) < len(label_values):
        yield f"custom.samples of {name} has two entries for one series"


def custom_value_problem(name: str, kind: int, value: float) -> str | None:
    """What is wrong with a sample of a custom metric; ``None`` for a valid one."""
    if not isfinite(value):
        return f"custom.samples.value of {shown(name)} is {value}; it must be a finite number"
    if kind == COUNTER and value < 0.0:
        return f"custom.samples.value of {shown(name)} is {value}; a counter must be 0 or more"
    return None


def shown(text: str) -> str:
    """``text`` for an error message: control characters escaped, and cut to a length that fits a log line."""
    return ascii(text if len(text) <= 60 else text[:57] + "...")
