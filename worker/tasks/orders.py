"""What a master may have this worker run. Pure.

A master is believed in nothing here: what is not well-formed, or what the worker's own policy does not allow, is
refused before anything is made. What the contract has no field for, as a mount, cannot be asked for at all.
"""

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.image import check_image, normalised
from fleetpulse.proto.policy import TaskPolicy, TaskRequest, judge, settle
from fleetpulse.proto.rules import (
    MAX_GPUS,
    MIN_CPU_CORES,
    MIN_MEMORY_BYTES,
    USER_RULE,
    is_env_name,
    is_gpu_uuid,
    is_task_id,
    is_user,
)
from fleetpulse.worker.tasks.engine import AttemptKey, ContainerSpec, EngineError

_NETWORKS: dict[int, str | None] = {
    pb.NETWORK_UNSPECIFIED: None,
    pb.NETWORK_NONE: "none",
    pb.NETWORK_BRIDGE: "bridge",
}


class OrderRefused(EngineError):
    """The message names the rule; no value of the environment is in it."""

    def __init__(self, rule: str, message: str, reason: str = "policy_refused") -> None:
        super().__init__(f"this worker refuses it by its rule {rule}: {message}", reason)


def admitted(order: pb.StartTask, policy: TaskPolicy) -> ContainerSpec:
    """The container that is to be made. Raises ``OrderRefused``."""
    _check_form(order)
    wish = TaskRequest(
        image=order.docker_image,
        command=order.command,
        env=order.env,
        cpu_cores=order.cpu_cores,
        memory_bytes=order.memory_bytes,
        read_only=order.read_only if order.HasField("read_only") else None,
        user=order.user or None,
        network=_NETWORKS[order.network],
    )
    if refusals := judge(policy, wish):
        raise OrderRefused(", ".join(refusal.rule for refusal in refusals), "; ".join(map(str, refusals)))
    settled = settle(policy, wish)
    return ContainerSpec(
        key=AttemptKey.of(order.id),
        # In full: as it stands, Docker could take it for the id of any image that is here.
        image=str(normalised(order.docker_image)),
        command=tuple(order.command),
        env=dict(order.env),
        cpu_cores=order.cpu_cores,
        memory_bytes=order.memory_bytes,
        gpu_uuids=tuple(order.gpu_uuids),
        timeout_seconds=order.timeout_seconds if order.HasField("timeout_seconds") else None,
        log_limit_bytes=order.log_limit_bytes,
        read_only=bool(settled.read_only),
        user=settled.user,
        has_network=settled.network != "none",
        pids_limit=policy.max_pids,
    )


def _check_form(order: pb.StartTask) -> None:
    """What the master of this version never sends."""
    if not is_task_id(order.id.task_id) or order.id.attempt < 1:
        raise OrderRefused("id", "the attempt must have a proper id and number")
    try:
        check_image(order.docker_image)
    except ValueError as error:
        raise OrderRefused("docker_image", f"the reference {error}", "image_invalid") from error
    if not all(map(is_env_name, order.env)):
        raise OrderRefused("env", "each name must be ASCII letters, digits and '_', no digit first")
    if any("\0" in text for text in (*order.command, *order.env.values())):
        raise OrderRefused("command", "neither a word nor a value of env may hold a NUL")
    if not order.cpu_cores >= MIN_CPU_CORES:
        raise OrderRefused("cpu_cores", f"must be at least {MIN_CPU_CORES:g}")
    if order.memory_bytes < MIN_MEMORY_BYTES:
        raise OrderRefused("memory_bytes", f"must be at least {MIN_MEMORY_BYTES}")
    if len(order.gpu_uuids) > MAX_GPUS or not all(map(is_gpu_uuid, order.gpu_uuids)):
        raise OrderRefused("gpu_uuids", f"must be at most {MAX_GPUS} ids of devices, each as GPU-… or MIG-…")
    if order.user and not is_user(order.user):
        raise OrderRefused("user", f"must be {USER_RULE}")
    if order.network not in _NETWORKS:
        raise OrderRefused("network", "must be none or bridge")
