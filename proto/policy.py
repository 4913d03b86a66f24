"""The task policy of one end: read from a TOML file, and applied to a task. Master and worker share it.

The master checks a task when it is submitted, so that people hear it at once. The worker checks it again before it
creates anything, because it need not trust its master. Each reads a policy of its own, once, at the start;
``docs/security.md`` has an example with every key.
"""

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_type_hints

import msgspec
from msgspec import Meta

from fleetpulse.proto.image import DIGEST_PATTERN, Reference, parse_image
from fleetpulse.proto.rules import (
    MAX_CPU_CORES,
    MAX_ENV_ENTRIES,
    MAX_MEMORY_MIB,
    MAX_TEXT_BYTES,
    MIN_MEMORY_MIB,
    NETWORKS,
    USER_RULE,
    Network,
    is_user,
)

MAX_FILE_BYTES = 1024 * 1024
_MAX_COUNT = 2**63 - 1

ReadOnlyRoot = Literal["off", "default", "forced"]

# The registry is named in full: it is localhost, or has one of these marks.
_IMAGES = r"^(?=localhost/|[^/]*[.:*])[A-Za-z0-9.*:\[\]_-]+(?:/[a-z0-9._*-]+)+(?::[A-Za-z0-9_.*-]+)?\Z"
_Patterns = Annotated[tuple[Annotated[str, Meta(pattern=_IMAGES)], ...], Meta(min_length=1)]
_Digests = Annotated[tuple[Annotated[str, Meta(pattern=rf"^{DIGEST_PATTERN}\Z")], ...], Meta(min_length=1)]
_Flag = Annotated[bool, Meta(description="true or false")]
_Bytes = Annotated[int, Meta(ge=0, le=_MAX_COUNT, description="a whole number of bytes")]


class TaskPolicy(NamedTuple):
    """The fields are the keys of a policy file; each description says what a file may hold. The defaults allow any
    image."""

    images: Annotated[
        _Patterns | None, Meta(description='a list of patterns of full names, as "docker.io/library/*"')
    ] = None
    """See ``matches``; ``None`` allows any image, unless there are ``digests``."""
    digests: Annotated[_Digests | None, Meta(description="a list of digests, as sha256: and 64 hexadecimal digits")] = (
        None
    )
    """Images that are allowed whatever their name is."""
    require_digest: _Flag = False
    networks: Annotated[tuple[Network, ...], Meta(min_length=1, description=f"a list of: {', '.join(NETWORKS)}")] = (
        NETWORKS
    )
    default_network: Annotated[Network | None, Meta(description=f"one of: {', '.join(NETWORKS)}")] = None
    """``None``: the other end's, or the bridge if that is allowed."""
    read_only_root: Annotated[ReadOnlyRoot, Meta(description=f"one of: {', '.join(get_args(ReadOnlyRoot))}")] = "off"
    """``default``: unless the task says otherwise; ``forced``: always."""
    user: Annotated[str | None, Meta(description=USER_RULE)] = None
    """Every task runs as this user."""
    require_non_root: _Flag = False
    """A task must name a numeric user id other than 0; what a name means depends on the image."""
    max_env_entries: Annotated[int, Meta(ge=0, le=_MAX_COUNT, description="a whole number")] = MAX_ENV_ENTRIES
    max_env_bytes: _Bytes = MAX_TEXT_BYTES
    max_command_bytes: _Bytes = MAX_TEXT_BYTES
    max_cpu_cores: Annotated[float, Meta(gt=0, le=sys.float_info.max, description="a number above 0")] = float(
        MAX_CPU_CORES
    )
    max_memory_mib: Annotated[
        int, Meta(ge=MIN_MEMORY_MIB, le=_MAX_COUNT, description=f"a whole number of MiB, {MIN_MEMORY_MIB} or more")
    ] = MAX_MEMORY_MIB
    max_pids: Annotated[int, Meta(ge=1, le=_MAX_COUNT, description="a whole number, 1 or more")] = 1024
    """Processes and threads of a container. Only the worker's counts; a task cannot set it."""
    max_disk_mib: Annotated[int, Meta(ge=1, le=2**40, description="a whole number of MiB, 1 or more")] = 10 * 1024
    """What a container may write to its root filesystem. Only the worker's counts; a task cannot set it."""
    allow_host: _Flag = False
    """Tasks may reach the services of their machine. This and the following: only the worker's counts."""
    allow_metadata: _Flag = False
    """Tasks may reach link-local addresses, among them a cloud's metadata."""
    allow_master: _Flag = False
    """Tasks may reach the machine of the master."""
    require_firewall: _Flag = False
    """A task with a network fails where the worker cannot set the rules that block these."""


class PolicyError(Exception):
    """One line: where in the file, and what is wrong."""


class PolicyInput(NamedTuple):
    """The part of a task that a policy checks."""

    image: str
    command: Sequence[str]
    env: Mapping[str, str]
    cpu_cores: float
    memory_bytes: int
    read_only: bool | None
    user: str | None
    network: str | None


class SecurityContext(NamedTuple):
    """The settings of a task that a policy can fill in; ``None``: the policy leaves it open."""

    read_only: bool | None
    user: str | None
    network: str | None


class Refusal(NamedTuple):
    """``rule`` is a field of ``TaskPolicy``, ``field`` one of a submitted task."""

    rule: str
    field: str
    message: str
    """Says what is allowed. Never holds a value of the environment."""

    def __str__(self) -> str:
        return f"{self.field} {self.message}"


def read_policy(path: Path) -> TaskPolicy:
    """Raises ``PolicyError``, which names the file."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        return parse_policy(content.decode())
    except OSError as error:
        raise PolicyError(f"task policy {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise PolicyError(f"task policy {path}: is not UTF-8") from error
    except PolicyError as error:
        raise PolicyError(f"task policy {path}: {error}") from error


def parse_policy(text: str) -> TaskPolicy:
    """Raises ``PolicyError``. A file with any error is refused as a whole."""
    if len(text) > MAX_FILE_BYTES:
        raise PolicyError(f"has more than {MAX_FILE_BYTES} bytes")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"is not TOML: {error}") from error
    rules, values = get_type_hints(TaskPolicy, include_extras=True), dict[str, Any]()
    for key, value in table.items():
        if key not in rules:
            raise PolicyError(f"{_line(text, key)}{key!r} is not known; known are {', '.join(sorted(rules))}")
        try:
            values[key] = msgspec.convert(value, rules[key])
        except msgspec.ValidationError as error:
            raise PolicyError(f"{_line(text, key)}{key}: expected {rules[key].__metadata__[-1].description}") from error
    policy = TaskPolicy(**values)
    if policy.user is not None and not is_user(policy.user):
        raise PolicyError(f"{_line(text, 'user')}user: expected {USER_RULE}")
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


def check_policy(policy: TaskPolicy, task: PolicyInput) -> list[Refusal]:
    """Returns every rule that the task breaks. The image must be well-formed."""
    return [*_image(policy, task), *_size(policy, task), *_confinement(policy, task)]


def apply_defaults(policy: TaskPolicy, task: PolicyInput) -> SecurityContext:
    """Returns the settings with which a task that breaks no rule runs."""
    read_only = task.read_only
    if read_only is None and policy.read_only_root != "off":
        read_only = True
    network = task.network or policy.default_network
    if network is None and "bridge" not in policy.networks:
        network = policy.networks[0]
    return SecurityContext(read_only, task.user or policy.user, network)


def matches(pattern: str, image: Reference) -> bool:
    """``*`` matches anything but a ``/``, ``**`` anything. A pattern with a tag never matches an image that is named
    by its digest: Docker ignores the tag of such a reference."""
    if ":" in pattern.rpartition("/")[2]:
        return not image.digest and _compiled(pattern).fullmatch(f"{image.name}:{image.tag}") is not None
    return _compiled(pattern).fullmatch(image.name) is not None


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = (".*" if part == "**" else "[^/]*" if part == "*" else re.escape(part) for part in _STARS.split(pattern))
    return re.compile("".join(parts))


_STARS = re.compile(r"(\*\*|\*)")


def _image(policy: TaskPolicy, task: PolicyInput) -> Iterator[Refusal]:
    image = parse_image(task.image)
    if policy.require_digest and not image.digest:
        yield Refusal("require_digest", "docker_image", "must be named by its digest, as NAME@sha256:…")
    if policy.images is None and policy.digests is None:
        return
    is_listed = image.digest in (policy.digests or ())
    if not is_listed and not any(matches(pattern, image) for pattern in policy.images or ()):
        allowed = ", ".join([*(policy.images or ()), *(policy.digests or ())]) or "none"
        rule = "digests" if policy.images is None else "images"
        yield Refusal(rule, "docker_image", f"is {image}, which is not allowed; allowed are: {allowed}")


def _size(policy: TaskPolicy, task: PolicyInput) -> Iterator[Refusal]:
    if len(task.env) > policy.max_env_entries:
        yield _too_much("max_env_entries", "env", f"{policy.max_env_entries} entries", len(task.env))
    env_bytes = sum(len(name.encode()) + len(value.encode()) for name, value in task.env.items())
    if env_bytes > policy.max_env_bytes:
        yield _too_much("max_env_bytes", "env", f"{policy.max_env_bytes} bytes in all", env_bytes)
    command_bytes = sum(len(word.encode()) for word in task.command)
    if command_bytes > policy.max_command_bytes:
        yield _too_much("max_command_bytes", "command", f"{policy.max_command_bytes} bytes in all", command_bytes)
    if not task.cpu_cores <= policy.max_cpu_cores:  # written so, it refuses NaN too
        yield _too_much("max_cpu_cores", "cpu_required", f"{policy.max_cpu_cores:g} cores", task.cpu_cores)
    memory_mib = task.memory_bytes / 2**20
    if memory_mib > policy.max_memory_mib:
        yield _too_much("max_memory_mib", "memory_required", f"{policy.max_memory_mib} MiB", memory_mib)


def _too_much(rule: str, field: str, limit: str, found: float) -> Refusal:
    return Refusal(rule, field, f"must be at most {limit}, not {found:g}")


def _confinement(policy: TaskPolicy, task: PolicyInput) -> Iterator[Refusal]:
    if policy.read_only_root == "forced" and task.read_only is False:
        yield Refusal("read_only_root", "read_only", "must not be false: every root filesystem is read-only")
    if task.network is not None and task.network not in policy.networks:
        yield Refusal("networks", "network", f"must be one of: {', '.join(policy.networks)}")
    user = task.user or policy.user
    if policy.user is not None and user != policy.user:
        yield Refusal("user", "user", f"must be {policy.user}, or not given")
    elif policy.require_non_root and (user is None or not is_non_root(user)):
        yield Refusal("require_non_root", "user", "must be a number other than 0, as 1000 or 1000:1000")


def is_non_root(user: str) -> bool:
    """Whether the user is a numeric id other than 0."""
    uid = user.partition(":")[0]
    return uid.isascii() and uid.isdigit() and int(uid) != 0
