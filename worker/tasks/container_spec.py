"""From a ``StartTask`` to the container of one attempt: decode, validate, apply the worker's policy. Pure.

The worker does not trust its master: a request that is malformed, or that the worker's own policy forbids, is refused
before anything is created. What the contract has no field for, such as a mount, cannot be requested.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto import rules
from fleetpulse.proto.image import parse_image
from fleetpulse.proto.policy import PolicyInput, TaskPolicy, apply_defaults, check_policy

_NETWORKS: dict[int, str | None] = {pb.NETWORK_UNSPECIFIED: None, pb.NETWORK_NONE: "none", pb.NETWORK_BRIDGE: "bridge"}


class AttemptKey(NamedTuple):
    """One run of a task; ``AttemptId`` on the wire."""

    task_id: str
    attempt: int

    @classmethod
    def of(cls, message: pb.AttemptId) -> "AttemptKey":
        return cls(message.task_id, message.attempt)

    def message(self) -> pb.AttemptId:
        return pb.AttemptId(task_id=self.task_id, attempt=self.attempt)

    def __str__(self) -> str:
        """For logs, escaped: a master may send any id."""
        return f"{ascii(self.task_id)[1:-1]}/{self.attempt}"


class ContainerSpec(NamedTuple):
    """The container of one attempt. Its labels keep the timeout and the log limit for the worker that adopts it."""

    key: AttemptKey
    image: str
    command: Sequence[str] = ()
    """Empty: the image's command."""

    env: Mapping[str, str] = MappingProxyType({})
    cpu_cores: float = 0.0
    memory_bytes: int = 0
    """0: unlimited; the same for ``cpu_cores``."""

    pids_limit: int = TaskPolicy().max_pids
    disk_limit_bytes: int = TaskPolicy().max_disk_mib * 2**20
    gpu_uuids: Sequence[str] = ()
    timeout_seconds: float | None = None
    log_limit_bytes: int = rules.LOG_LIMIT_BYTES
    read_only: bool | None = None
    refuses_volumes: bool = False
    """Of the image: each would be a place to write to."""

    requires_firewall: bool = False
    """A network without rules for what tasks may not reach is refused."""

    user: str | None = None
    network: str | None = None
    """``None`` as ``read_only``, ``user``, ``network``: a writable root, the image's user, Docker's bridge."""

    def __repr__(self) -> str:
        """Without the values of ``env``, which may be secrets."""
        return f"ContainerSpec{tuple(self._replace(env=dict.fromkeys(self.env, '***')))!r}"


class RequestRefused(Exception):
    """The worker does not run this request. The message names the rule and no value of the environment.

    ``reason`` is one of ``proto.rules.ATTEMPT_REASONS``.
    """

    def __init__(self, rule: str, message: str, reason: str = "policy_refused") -> None:
        super().__init__(f"this worker refuses it by its rule {rule}: {message}")
        self.reason = reason


def container_spec(request: pb.StartTask, policy: TaskPolicy) -> ContainerSpec:
    """The container to create. Raises ``RequestRefused``."""
    _validate(request)
    wanted = PolicyInput(
        # The full name: Docker could take a short one for the id of a local image.
        image=str(parse_image(request.docker_image)),
        command=tuple(request.command),
        env=dict(request.env),
        cpu_cores=request.cpu_cores,
        memory_bytes=request.memory_bytes,
        read_only=request.read_only if request.HasField("read_only") else None,
        user=request.user or None,
        network=_NETWORKS[request.network],
    )
    if refusals := check_policy(policy, wanted):
        raise RequestRefused(", ".join(refusal.rule for refusal in refusals), "; ".join(map(str, refusals)))
    return ContainerSpec(
        key=AttemptKey.of(request.id),
        pids_limit=policy.max_pids,
        disk_limit_bytes=policy.max_disk_mib * 2**20,
        refuses_volumes=policy.read_only_root == "forced",
        requires_firewall=policy.require_firewall,
        gpu_uuids=tuple(request.gpu_uuids),
        timeout_seconds=request.timeout_seconds if request.HasField("timeout_seconds") else None,
        log_limit_bytes=request.log_limit_bytes,
        **wanted._asdict() | apply_defaults(policy, wanted)._asdict(),
    )


def _validate(request: pb.StartTask) -> None:
    """Rejects what a master of this version never sends."""
    if not rules.is_task_id(request.id.task_id) or request.id.attempt < 1:
        raise RequestRefused("id", "the attempt must have a proper id and number")
    try:
        parse_image(request.docker_image)
    except ValueError as error:
        raise RequestRefused("docker_image", f"the reference {error}", "image_invalid") from error
    if not all(map(rules.is_env_name, request.env)):
        raise RequestRefused("env", f"each name must be {rules.ENV_NAME_RULE}")
    if any("\0" in text for text in (*request.command, *request.env.values())):
        raise RequestRefused("command", "neither a word nor a value of env may hold a NUL")
    if not request.cpu_cores >= rules.MIN_CPU_CORES:  # written so that NaN is refused
        raise RequestRefused("cpu_cores", f"must be at least {rules.MIN_CPU_CORES:g}")
    if request.memory_bytes < rules.MIN_MEMORY_BYTES:
        raise RequestRefused("memory_bytes", f"must be at least {rules.MIN_MEMORY_BYTES}")
    if len(request.gpu_uuids) > rules.MAX_GPUS or not all(map(rules.is_gpu_uuid, request.gpu_uuids)):
        raise RequestRefused("gpu_uuids", f"must be at most {rules.MAX_GPUS} ids of devices, each as GPU-… or MIG-…")
    if request.user and not rules.is_user(request.user):
        raise RequestRefused("user", f"must be {rules.USER_RULE}")
    if request.network not in _NETWORKS:
        raise RequestRefused("network", "must be none or bridge")
