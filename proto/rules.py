"""Rules of the contract that protobuf cannot express. Both ends enforce them; nothing here does I/O.

A worker id is a label value on ``/metrics``, a path segment in REST and a shell word, so its characters need no
escaping in any of them.
"""

import ipaddress
import re
from typing import Literal, get_args

WORKER_ID_MAX_LENGTH = 128
WORKER_ID_PATTERN = rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{WORKER_ID_MAX_LENGTH - 1}}}"
WORKER_ID_RULE = (
    f"1 to {WORKER_ID_MAX_LENGTH} characters, each an ASCII letter, a digit, '.', '_' or '-', "
    "and the first one a letter or a digit"
)
_WORKER_ID = re.compile(WORKER_ID_PATTERN)

LABEL_NAME_PATTERN = r"[A-Za-z_][A-Za-z0-9_./-]{0,63}"
"""Of labels of workers and of tasks."""

LABEL_NAME_RULE = "1 to 64 ASCII letters, digits and '_./-', the first one a letter or '_'"
_LABEL_NAME = re.compile(LABEL_NAME_PATTERN)

INCARNATION_ID_PATTERN = r"[A-Za-z0-9._-]{0,64}"
INCARNATION_ID_RULE = "at most 64 letters, digits, '._-'"
_INCARNATION_ID = re.compile(INCARNATION_ID_PATTERN)

_HOST_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_MAX_HOST_LENGTH = 253

MAX_MESSAGE_BYTES = 1024 * 1024
"""The largest message that either end accepts; a heartbeat of a machine with 16 GPUs is under 8 KiB."""

MAX_REPORT_ENTRIES = 256
"""Registrations, heartbeats and departures in one ``Report``, in all."""

MAX_LOG_CHUNK_BYTES = 64 * 1024
LOG_LIMIT_BYTES = 10 * 1024 * 1024
"""How much of an attempt's output is kept."""

TASK_ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
TASK_ID_RULE = "1 to 64 ASCII letters, digits, '.', '_' and '-', the first one a letter or a digit"
_TASK_ID = re.compile(TASK_ID_PATTERN)

ENV_NAME_PATTERN = r"(?!NVIDIA_|AMD_VISIBLE_DEVICES$)[A-Za-z_][A-Za-z0-9_.-]{0,254}"
"""Without the names by which the container runtimes of NVIDIA and AMD hand out devices: the worker sets those."""

ENV_NAME_RULE = (
    "1 to 255 ASCII letters, digits and '_.-', a letter or '_' first; not NVIDIA_* or AMD_VISIBLE_DEVICES, by which a "
    "container runtime hands out devices: the worker sets them for gpu_required"
)
_ENV_NAME = re.compile(ENV_NAME_PATTERN)
MAX_ENV_ENTRIES = 1000
MAX_TEXT_BYTES = 256 * 1024
"""Of all words of a command, and of all names and values of an environment."""

MIN_CPU_CORES = 0.01
MAX_CPU_CORES = 1024
MIN_MEMORY_MIB = 6
"""Docker refuses less CPU or memory than these minimums, and takes 0 for no limit."""

MIN_MEMORY_BYTES = MIN_MEMORY_MIB * 1024 * 1024
MAX_MEMORY_MIB = 16 * 1024 * 1024
MAX_GPUS = 64
"""Of one task."""

Network = Literal["none", "bridge"]
NETWORKS: tuple[Network, ...] = get_args(Network)

TASK_DEVICE = "fleetpulse0"
"""The bridge of tasks with a network, on their machine."""

USER_PATTERN = r"(?:[0-9]{1,10}|[a-z_][a-z0-9_-]{0,31})(?::(?:[0-9]{1,10}|[a-z_][a-z0-9_-]{0,31}))?"
MAX_USER_ID = 2**31 - 1
USER_RULE = f"USER or USER:GROUP, each a number up to {MAX_USER_ID} or a name of 1 to 32 of a-z, 0-9, '_' and '-'"
_USER = re.compile(USER_PATTERN)
_GPU_UUID = re.compile(r"(?:GPU|MIG)-[A-Za-z0-9/_-]{1,90}")

MAX_CUSTOM_METRICS = 64
"""Entries of ``Heartbeat.custom``, counted once for each set of label names."""

MAX_CUSTOM_SAMPLES = 256
MAX_CUSTOM_LABELS = 8
MAX_CUSTOM_NAME_LENGTH = 100
MAX_CUSTOM_LABEL_NAME_LENGTH = 64
MAX_CUSTOM_LABEL_VALUE_LENGTH = 128
MAX_CUSTOM_HELP_LENGTH = 256
MAX_CUSTOM_BYTES = 64 * 1024
"""Of all custom metrics of a heartbeat, encoded."""

CUSTOM_NAME_RULE = (
    f"1 to {MAX_CUSTOM_NAME_LENGTH} lower-case ASCII letters, digits and '_', the first one a letter, "
    "the end none of _bucket, _count, _sum, _created, and _total for a counter alone"
)
CUSTOM_LABEL_NAME_RULE = (
    f"1 to {MAX_CUSTOM_LABEL_NAME_LENGTH} ASCII letters, digits and '_', the first one no digit, "
    "not two '_' at the start, and none of instance, job, le, quantile, worker_id"
)

CUSTOM_NAME_PATTERN = rf"[a-z][a-z0-9_]{{0,{MAX_CUSTOM_NAME_LENGTH - 1}}}"
CUSTOM_LABEL_NAME_PATTERN = rf"(?!__)[A-Za-z_][A-Za-z0-9_]{{0,{MAX_CUSTOM_LABEL_NAME_LENGTH - 1}}}"
_CUSTOM_NAME = re.compile(CUSTOM_NAME_PATTERN)
_CUSTOM_LABEL_NAME = re.compile(CUSTOM_LABEL_NAME_PATTERN)
_RESERVED_SUFFIXES = ("_bucket", "_count", "_sum", "_created")
_RESERVED_LABEL_NAMES = frozenset({"instance", "job", "le", "quantile", "worker_id"})

ATTEMPT_REASONS = frozenset(
    {
        "exit_code",  # the command ended with another code than 0
        "out_of_memory",  # the kernel killed the container for its memory limit
        "timeout",  # it ran for longer than its timeout_seconds
        "image_invalid",  # the reference is malformed, or the image does not fit this machine
        "image_not_found",  # the registry or the engine does not have it, or denies access
        "image_pull_failed",  # the registry could not be reached, or the pull broke off
        "command_not_found",  # the image has no such program, or cannot execute it
        "container_failed",  # the engine refused to create or to start the container
        "container_gone",  # somebody else removed the container
        "disk_limit",  # it wrote more than the worker lets a container keep
        "disk_full",  # no space is left for the image or the container
        "docker_unavailable",  # the engine did not answer for too long
        "policy_refused",  # the worker's task policy does not allow it; the message names the rule
        "no_task_support",  # the worker runs no tasks
        "stopped",  # ended by a StopTask
    }
)
"""Values of ``TaskUpdate.reason``: why an attempt failed."""


def is_worker_id(text: str) -> bool:
    """Whether ``text`` follows ``WORKER_ID_RULE``."""
    return _WORKER_ID.fullmatch(text) is not None


def is_incarnation_id(text: str) -> bool:
    """Whether ``text`` is empty or can name a start of a worker process."""
    return _INCARNATION_ID.fullmatch(text) is not None


def is_label_name(text: str) -> bool:
    """Whether ``text`` can name a label of a worker or of a task."""
    return _LABEL_NAME.fullmatch(text) is not None


def is_task_id(text: str) -> bool:
    """Whether ``text`` can name a task; it becomes part of a container's name."""
    return _TASK_ID.fullmatch(text) is not None


def is_env_name(text: str) -> bool:
    """Whether ``text`` can name an environment variable of a task."""
    return _ENV_NAME.fullmatch(text) is not None


def is_gpu_uuid(text: str) -> bool:
    """Whether ``text`` names one device, and not ``all`` of them."""
    return _GPU_UUID.fullmatch(text) is not None


def is_user(text: str) -> bool:
    """Whether ``text`` follows ``USER_RULE``."""
    numbers = (int(part) for part in text.split(":") if part.isascii() and part.isdigit())
    return _USER.fullmatch(text) is not None and all(number <= MAX_USER_ID for number in numbers)


def is_host(text: str) -> bool:
    """Whether ``text`` is a host name, an IPv4 address, or an IPv6 address in brackets."""
    if text.startswith("[") and text.endswith("]"):
        try:
            ipaddress.IPv6Address(text[1:-1])
        except ValueError:
            return False
        return True
    if re.fullmatch("[0-9.]+", text):
        try:
            ipaddress.IPv4Address(text)
        except ValueError:
            return False
        return True
    parts = text.removesuffix(".").split(".")
    return len(text) <= _MAX_HOST_LENGTH and all(map(_HOST_PART.fullmatch, parts))


def is_custom_name(name: str, *, is_counter: bool) -> bool:
    """Whether a custom metric may have this name (``CUSTOM_NAME_RULE``)."""
    return (
        _CUSTOM_NAME.fullmatch(name) is not None
        and not name.endswith(_RESERVED_SUFFIXES)
        and name.endswith("_total") == is_counter
    )


def is_custom_label_name(name: str) -> bool:
    """Whether a custom metric may have this label (``CUSTOM_LABEL_NAME_RULE``)."""
    return _CUSTOM_LABEL_NAME.fullmatch(name) is not None and name not in _RESERVED_LABEL_NAMES
