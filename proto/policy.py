"""The task policy of one end, and the check of a task against it. Pure; master and worker share it.

The master checks a task when it is submitted, so that people hear it at once. The worker checks it again before it
creates anything, because it need not trust its master. Each reads a policy of its own (``proto.policy_file``).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Literal, NamedTuple

from fleetpulse.proto.image import Reference, parse_image
from fleetpulse.proto.rules import MAX_CPU_CORES, MAX_ENV_ENTRIES, MAX_MEMORY_MIB, MAX_TEXT_BYTES, NETWORKS

ReadOnlyRoot = Literal["off", "default", "forced"]


class TaskPolicy(NamedTuple):
    """The fields are the keys of a policy file. The defaults allow any image."""

    images: tuple[str, ...] | None = None
    """Patterns of full names (see ``matches``); ``None`` allows any image, unless there are ``digests``."""

    digests: tuple[str, ...] | None = None
    """Images that are allowed whatever their name is."""

    require_digest: bool = False
    networks: tuple[str, ...] = NETWORKS
    default_network: str | None = None
    """``None``: the other end's, or the bridge if that is allowed."""

    read_only_root: ReadOnlyRoot = "off"
    """``default``: unless the task says otherwise; ``forced``: always."""

    user: str | None = None
    """Every task runs as this user."""

    require_non_root: bool = False
    """A task must name a numeric user id other than 0; what a name means depends on the image."""

    max_env_entries: int = MAX_ENV_ENTRIES
    max_env_bytes: int = MAX_TEXT_BYTES
    max_command_bytes: int = MAX_TEXT_BYTES
    max_cpu_cores: float = float(MAX_CPU_CORES)
    max_memory_mib: int = MAX_MEMORY_MIB
    max_pids: int = 1024
    """Processes and threads of a container. Only the worker's counts; a task cannot set it."""


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
