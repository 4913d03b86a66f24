"""Reads a task policy from a TOML file. ``docs/security.md`` has an example with every key.

Each end reads its own once, at the start; a file with any error is refused as a whole.
"""

import math
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from fleetpulse.proto.image import is_digest
from fleetpulse.proto.policy import ReadOnlyRoot, TaskPolicy, is_non_root
from fleetpulse.proto.rules import MIN_MEMORY_MIB, NETWORKS, USER_RULE, is_user

MAX_FILE_BYTES = 1024 * 1024

_PATTERN = re.compile(r"[A-Za-z0-9.*:\[\]_-]+(?:/[a-z0-9._*-]+)+(?::[A-Za-z0-9_.*-]+)?")


class PolicyError(Exception):
    """One line: where in the file, and what is wrong."""


def read_policy(path: Path) -> TaskPolicy:
    """Raises ``PolicyError``, which names the file."""
    try:
        return parse_policy(_read_text(path))
    except OSError as error:
        raise PolicyError(f"task policy {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise PolicyError(f"task policy {path}: is not UTF-8") from error
    except PolicyError as error:
        raise PolicyError(f"task policy {path}: {error}") from error


def _read_text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise PolicyError(f"has more than {MAX_FILE_BYTES} bytes")
    return content.decode()


def parse_policy(text: str) -> TaskPolicy:
    """Raises ``PolicyError``."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"is not TOML: {error}") from error
    for key, value in table.items():
        if key not in _KEYS:
            raise PolicyError(f"{_line(text, key)}{key!r} is not known; known are {', '.join(sorted(_KEYS))}")
        accepts, expected = _KEYS[key]
        if not accepts(value):
            raise PolicyError(f"{_line(text, key)}{key}: expected {expected}")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    policy = TaskPolicy(**values)
    # Rules that leave nothing to run are a mistake.
    if policy.default_network is not None and policy.default_network not in policy.networks:
        raise PolicyError(f"{_line(text, 'default_network')}default_network: expected one of networks")
    if policy.user is not None and policy.require_non_root and not is_non_root(policy.user):
        raise PolicyError(f"{_line(text, 'user')}user: expected a number other than 0, because of require_non_root")
    return policy


def _line(text: str, key: str) -> str:
    """The number of the key's line, as far as can be seen."""
    found = re.search(rf"^\s*[\"'\[]?{re.escape(key)}\b", text, re.MULTILINE)
    return f"line {text.count(chr(10), 0, found.end()) + 1}: " if found else ""


def _is_list(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(accepts(item) for item in value)


def _is_pattern(value: Any) -> bool:
    if not isinstance(value, str) or not _PATTERN.fullmatch(value):
        return False
    registry = value.partition("/")[0]
    return registry == "localhost" or any(mark in registry for mark in ".:*")


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and is_digest(value)


def _is_count(least: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value < 2**63


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_amount(value: Any) -> bool:
    return type(value) in {int, float} and math.isfinite(value) and value > 0


_KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "images": (_is_list(_is_pattern), 'a list of patterns of full names, as "docker.io/library/*"'),
    "digests": (_is_list(_is_digest), "a list of digests, as sha256: and 64 hexadecimal digits"),
    "require_digest": (_is_bool, "true or false"),
    "networks": (_is_list(lambda value: value in NETWORKS), f"a list of: {', '.join(NETWORKS)}"),
    "default_network": (lambda value: value in NETWORKS, f"one of: {', '.join(NETWORKS)}"),
    "read_only_root": (lambda value: value in get_args(ReadOnlyRoot), f"one of: {', '.join(get_args(ReadOnlyRoot))}"),
    "user": (lambda value: isinstance(value, str) and is_user(value), USER_RULE),
    "require_non_root": (_is_bool, "true or false"),
    "max_env_entries": (_is_count(0), "a whole number"),
    "max_env_bytes": (_is_count(0), "a whole number of bytes"),
    "max_command_bytes": (_is_count(0), "a whole number of bytes"),
    "max_cpu_cores": (_is_amount, "a number above 0"),
    "max_memory_mib": (_is_count(MIN_MEMORY_MIB), f"a whole number of MiB, {MIN_MEMORY_MIB} or more"),
    "max_pids": (_is_count(1), "a whole number, 1 or more"),
}
