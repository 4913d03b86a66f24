"""Translates ``ContainerSpec`` and ``ContainerInfo`` to and from the JSON of Docker's API. Pure."""

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from fleetpulse.proto.rules import LOG_LIMIT_BYTES
from fleetpulse.worker.docker_engine.ownership import ContainerOwner
from fleetpulse.worker.tasks.container_spec import AttemptKey, ContainerSpec
from fleetpulse.worker.tasks.engine import ContainerInfo, ContainerStatus, ContainerUsage

WORKER_LABEL = "fleetpulse.worker_id"
OWNER_LABEL = "fleetpulse.owner"
_TASK_LABEL = "fleetpulse.task_id"
_ATTEMPT_LABEL = "fleetpulse.attempt"
_TIMEOUT_LABEL = "fleetpulse.timeout_seconds"
_LOG_LIMIT_LABEL = "fleetpulse.log_limit_bytes"
_DISK_LIMIT_LABEL = "fleetpulse.disk_limit_bytes"

_NO_LIMIT = "none"
_MAX_VOLUME_BYTES = 2**30

_LOG_CONFIG = {"Type": "json-file", "Config": {"max-size": "64m", "max-file": "4"}}
"""It replaces bytes that are no UTF-8, also where it splits a line at 16 KiB; the driver ``local`` loses newlines."""

_NANO = 1_000_000_000
_STATUS = {"created": ContainerStatus.CREATED, "exited": ContainerStatus.ENDED, "dead": ContainerStatus.ENDED}
"""All others (running, paused, restarting, removing) have a process."""


def container_settings(spec: ContainerSpec, owner: ContainerOwner) -> dict[str, Any]:
    """Arguments of ``create_container`` but the host config. One name per attempt: it cannot have two containers."""
    return {
        "image": spec.image,
        "command": list(spec.command) or None,
        "name": container_name(spec.key),
        "environment": {**spec.env, **_device_environment(spec)},
        "user": spec.user,
        "labels": container_labels(spec, owner),
    }


def _device_environment(spec: ContainerSpec) -> dict[str, str]:
    """What the runtimes of GPU vendors read, where one is Docker's default: an image's own value would be all GPUs.

    ``void`` is the NVIDIA runtime's word for none. Tasks get no device of AMD.
    """
    return {"NVIDIA_VISIBLE_DEVICES": ",".join(spec.gpu_uuids) or "void", "AMD_VISIBLE_DEVICES": ""}


def container_name(key: AttemptKey) -> str:
    return f"fleetpulse-{key.task_id}-{key.attempt}"


def container_labels(spec: ContainerSpec, owner: ContainerOwner) -> dict[str, str]:
    """Everything that a worker needs to adopt the container. Always all of them: an image's own would show through."""
    return {
        WORKER_LABEL: owner.worker_id,
        OWNER_LABEL: owner.secret,
        _TASK_LABEL: spec.key.task_id,
        _ATTEMPT_LABEL: str(spec.key.attempt),
        _LOG_LIMIT_LABEL: str(spec.log_limit_bytes),
        _DISK_LIMIT_LABEL: str(spec.disk_limit_bytes),
        _TIMEOUT_LABEL: _NO_LIMIT if spec.timeout_seconds is None else repr(spec.timeout_seconds),
    }


def host_config(spec: ContainerSpec, volumes: Iterable[str] = (), bridge: str = "default") -> dict[str, Any]:
    """Arguments of ``create_host_config``: the limits, the least privileges, no mounts.

    ``volumes``: the image's; Docker would make each a folder on the disk that no limit counts. They become memory, of
    the task's own and half of it at most. ``bridge``: the network mode of a task that may have a network.
    """
    config: dict[str, Any] = {
        "pids_limit": spec.pids_limit,
        "privileged": False,
        "read_only": bool(spec.read_only),
        "network_mode": "none" if spec.network == "none" else bridge,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "init": True,
        "log_config": _LOG_CONFIG,
    }
    if targets := sorted({posixpath.normpath("/" + path.lstrip("/")) for path in volumes}):
        size = min(spec.memory_bytes // 2 or _MAX_VOLUME_BYTES, _MAX_VOLUME_BYTES)
        config["mounts"] = [
            {"Target": target, "Type": "tmpfs", "TmpfsOptions": {"SizeBytes": size}} for target in targets
        ]
    if spec.cpu_cores > 0.0:
        config["nano_cpus"] = max(round(spec.cpu_cores * _NANO), _NANO // 100)
    if spec.memory_bytes > 0:
        # The same limit with swap: no swap.
        config["mem_limit"] = config["memswap_limit"] = spec.memory_bytes
    if spec.gpu_uuids:
        config["device_requests"] = [
            {"Driver": "", "Count": 0, "DeviceIDs": list(spec.gpu_uuids), "Capabilities": [["gpu"]], "Options": {}}
        ]
    return config


def attempt_key(details: Mapping[str, Any], owner: ContainerOwner) -> AttemptKey | None:
    """The attempt of a container in ``GET /containers/{id}/json``; ``None`` if it is not this worker's."""
    labels, status = details["Config"].get("Labels") or {}, _status(details["State"]["Status"])
    return _own_key(str(details["Id"]), [str(details.get("Name"))], labels, status, owner)


def containers_of_worker(summaries: Sequence[Mapping[str, Any]], owner: ContainerOwner) -> list[ContainerInfo]:
    """This worker's containers in ``GET /containers/json``."""
    containers = []
    for summary in summaries:
        container_id, status = str(summary["Id"]), _status(summary.get("State"))
        key = _own_key(container_id, summary.get("Names") or (), summary.get("Labels") or {}, status, owner)
        if key is not None:
            containers.append(ContainerInfo(container_id, key, status))
    return containers


def _own_key(
    container_id: str,
    names: Sequence[str],
    labels: Mapping[str, str],
    status: ContainerStatus,
    owner: ContainerOwner,
) -> AttemptKey | None:
    """See ``ownership``."""
    attempt = labels.get(_ATTEMPT_LABEL, "")
    if labels.get(OWNER_LABEL) != owner.secret or labels.get(WORKER_LABEL) != owner.worker_id:
        return None
    if not (attempt.isascii() and attempt.isdigit() and labels.get(_TASK_LABEL)):
        return None
    key = AttemptKey(labels[_TASK_LABEL], int(attempt))
    is_ours = owner.has_noted(container_id) or status is ContainerStatus.CREATED
    return key if is_ours and f"/{container_name(key)}" in names else None


def container_info(details: Mapping[str, Any], key: AttemptKey) -> ContainerInfo:
    """From ``GET /containers/{id}/json``."""
    state, labels = details["State"], details["Config"].get("Labels") or {}
    status = _status(state["Status"])
    timeout = labels.get(_TIMEOUT_LABEL)
    return ContainerInfo(
        container_id=str(details["Id"]),
        key=key,
        status=status,
        started_at=_unix_seconds(state.get("StartedAt")),
        finished_at=_unix_seconds(state.get("FinishedAt")),
        exit_code=int(state["ExitCode"]) if status is ContainerStatus.ENDED else None,
        oom_killed=bool(state.get("OOMKilled")),
        memory_bytes=int((details.get("HostConfig") or {}).get("Memory") or 0),
        timeout_seconds=None if timeout in {None, _NO_LIMIT} else float(timeout),
        log_limit_bytes=int(labels.get(_LOG_LIMIT_LABEL) or LOG_LIMIT_BYTES),
        disk_limit_bytes=int(labels[_DISK_LIMIT_LABEL]) if labels.get(_DISK_LIMIT_LABEL) else None,
    )


def container_usage(stats: Mapping[str, Any], at: float) -> ContainerUsage:
    """Memory as the docker command counts it: without reclaimable page cache."""
    cpu = (stats.get("cpu_stats") or {}).get("cpu_usage") or {}
    memory = stats.get("memory_stats") or {}
    nanoseconds: int | None = cpu.get("total_usage")
    used: int | None = memory.get("usage")
    details: Mapping[str, int] = memory.get("stats") or {}
    reclaimable = details.get("total_inactive_file") or details.get("inactive_file") or 0
    return ContainerUsage(
        cpu_seconds=None if nanoseconds is None else nanoseconds / _NANO,
        memory_bytes=None if used is None else max(used - reclaimable, 0),
        at=at,
    )


def _status(state: object) -> ContainerStatus:
    return _STATUS.get(str(state), ContainerStatus.RUNNING)


def _unix_seconds(text: str | None) -> float | None:
    """Docker writes nanoseconds, and the year 1 for never."""
    if not text or text.startswith("0001-"):
        return None
    seconds, _, rest = text.partition(".")
    fraction = rest.rstrip("Z")[:6] or "0"
    return datetime.fromisoformat(f"{seconds.rstrip('Z')}+00:00").timestamp() + float(f"0.{fraction}")
