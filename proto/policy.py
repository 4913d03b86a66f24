"""What tasks may be: the rules of one end, and the judgement by them. Pure, and the same for master and worker.

Both judge: the master when a task is submitted, so that people hear it at once; the worker before it makes anything,
because it need not trust its master. Each reads a policy of its own (``proto.policy_file``).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Literal, NamedTuple

from fleetpulse.proto.image import Reference, normalised

NETWORKS = ("none", "bridge")
MAX_TEXTS_BYTES = 256 * 1024

ReadOnlyRoot = Literal["off", "default", "forced"]


class TaskPolicy(NamedTuple):
    """The rules. Those built in allow any image; fields are what a policy file may say."""

    images: tuple[str, ...] | None = None
    """Patterns of names in full; ``None``, unless there are ``digests``: any. See ``matches``."""

    digests: tuple[str, ...] | None = None
    """Images that are allowed whatever they are called."""

    require_digest: bool = False
    networks: tuple[str, ...] = NETWORKS
    default_network: str | None = None
    """``None``: the other end's, or the bridge if that is allowed."""

    read_only_root: ReadOnlyRoot = "off"
    """``default``: unless the task says otherwise; ``forced``: whatever it says."""

    user: str | None = None
    """All run as this one."""

    require_non_root: bool = False
    """A task names a numeric user id that is not 0: what a name means, the image would say."""

    max_env_entries: int = 1000
    max_env_bytes: int = MAX_TEXTS_BYTES
    max_command_bytes: int = MAX_TEXTS_BYTES
    max_cpu_cores: float = 1024.0
    max_memory_mib: int = 16 * 1024 * 1024
    max_pids: int = 1024
    """Processes and threads of a container. The worker's counts, and no task can say anything about it."""


class TaskRequest(NamedTuple):
    """The part of a task that is judged."""

    image: str
    command: Sequence[str]
    env: Mapping[str, str]
    cpu_cores: float
    memory_bytes: int
    read_only: bool | None
    user: str | None
    network: str | None


class ResolvedRequest(NamedTuple):
    """What of a wish the policy leaves open, or decides; ``None``: it says nothing about it."""

    read_only: bool | None
    user: str | None
    network: str | None


class Refusal(NamedTuple):
    """``rule`` is a field of ``TaskPolicy``; ``field`` is that of a submit."""

    rule: str
    field: str
    message: str
    """Says what is allowed. No value of the environment is in it."""

    def __str__(self) -> str:
        return f"{self.field} {self.message}"


def judge(policy: TaskPolicy, wish: TaskRequest) -> list[Refusal]:
    """Every rule that the wish breaks; none: it may run as ``settle`` says. The image must be well-formed."""
    return [*_image(policy, wish), *_size(policy, wish), *_confinement(policy, wish)]


def settle(policy: TaskPolicy, wish: TaskRequest) -> ResolvedRequest:
    """What holds for a wish that breaks no rule."""
    read_only = wish.read_only
    if read_only is None and policy.read_only_root != "off":
        read_only = True
    network = wish.network or policy.default_network
    if network is None and "bridge" not in policy.networks:
        network = policy.networks[0]
    return ResolvedRequest(read_only, wish.user or policy.user, network)


def matches(pattern: str, image: Reference) -> bool:
    """``*`` stands for anything but a ``/``, ``**`` for anything. A pattern with a tag is about tags alone: an image
    that is named by its digest has none, whatever stands before the ``@``."""
    if ":" in pattern.rpartition("/")[2]:
        return not image.digest and _compiled(pattern).fullmatch(f"{image.name}:{image.tag}") is not None
    return _compiled(pattern).fullmatch(image.name) is not None


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = (".*" if part == "**" else "[^/]*" if part == "*" else re.escape(part) for part in _STARS.split(pattern))
    return re.compile("".join(parts))


_STARS = re.compile(r"(\*\*|\*)")


def _image(policy: TaskPolicy, wish: TaskRequest) -> Iterator[Refusal]:
    image = normalised(wish.image)
    if policy.require_digest and not image.digest:
        yield Refusal("require_digest", "docker_image", "must be named by its digest, as NAME@sha256:…")
    if policy.images is None and policy.digests is None:
        return
    is_listed = image.digest in (policy.digests or ())
    if not is_listed and not any(matches(pattern, image) for pattern in policy.images or ()):
        allowed = ", ".join([*(policy.images or ()), *(policy.digests or ())]) or "none"
        rule = "digests" if policy.images is None else "images"
        yield Refusal(rule, "docker_image", f"is {image}, which is not allowed; allowed are: {allowed}")


def _size(policy: TaskPolicy, wish: TaskRequest) -> Iterator[Refusal]:
    if len(wish.env) > policy.max_env_entries:
        yield _too_much("max_env_entries", "env", f"{policy.max_env_entries} entries", len(wish.env))
    env_bytes = sum(len(name.encode()) + len(value.encode()) for name, value in wish.env.items())
    if env_bytes > policy.max_env_bytes:
        yield _too_much("max_env_bytes", "env", f"{policy.max_env_bytes} bytes in all", env_bytes)
    command_bytes = sum(len(word.encode()) for word in wish.command)
    if command_bytes > policy.max_command_bytes:
        yield _too_much("max_command_bytes", "command", f"{policy.max_command_bytes} bytes in all", command_bytes)
    if not wish.cpu_cores <= policy.max_cpu_cores:  # so written, NaN is refused too
        yield _too_much("max_cpu_cores", "cpu_required", f"{policy.max_cpu_cores:g} cores", wish.cpu_cores)
    memory_mib = wish.memory_bytes / 2**20
    if memory_mib > policy.max_memory_mib:
        yield _too_much("max_memory_mib", "memory_required", f"{policy.max_memory_mib} MiB", memory_mib)


def _too_much(rule: str, field: str, limit: str, found: float) -> Refusal:
    return Refusal(rule, field, f"must be at most {limit}, not {found:g}")


def _confinement(policy: TaskPolicy, wish: TaskRequest) -> Iterator[Refusal]:
    if policy.read_only_root == "forced" and wish.read_only is False:
        yield Refusal("read_only_root", "read_only", "must not be false: every root filesystem is read-only")
    if wish.network is not None and wish.network not in policy.networks:
        yield Refusal("networks", "network", f"must be one of: {', '.join(policy.networks)}")
    user = wish.user or policy.user
    if policy.user is not None and user != policy.user:
        yield Refusal("user", "user", f"must be {policy.user}, or not given")
    elif policy.require_non_root and (user is None or not is_non_root(user)):
        yield Refusal("require_non_root", "user", "must be a number other than 0, as 1000 or 1000:1000")


def is_non_root(user: str) -> bool:
    """Whether this is surely not root, whatever the image says of names."""
    uid = user.partition(":")[0]
    return uid.isascii() and uid.isdigit() and int(uid) != 0
