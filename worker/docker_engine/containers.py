"""Between a ``ContainerSpec`` or a ``Container`` and the JSON of Docker's API. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from fleetpulse.worker.tasks.engine import DEFAULT_LOG_LIMIT_BYTES, AttemptKey, Container, ContainerSpec, Status, Usage

WORKER_LABEL = "fleetpulse.worker_id"
_TASK_LABEL = "fleetpulse.task_id"
_ATTEMPT_LABEL = "fleetpulse.attempt"
_TIMEOUT_LABEL = "fleetpulse.timeout_seconds"
_LOG_LIMIT_LABEL = "fleetpulse.log_limit_bytes"

_LOG_FILE = "64m"
_LOG_FILES = "4"
_NANO = 1_000_000_000
_STATUS = {"created": Status.CREATED, "exited": Status.ENDED, "dead": Status.ENDED}
"""All others (running, paused, restarting, removing) have a process."""


def container_name(key: AttemptKey) -> str:
    """The same for every try, so that there cannot be two containers of one attempt."""
    return f"fleetpulse-{key.task_id}-{key.attempt}"


def labels_of(spec: ContainerSpec, worker_id: str) -> dict[str, str]:
    """All that whoever adopts the container must know."""
    labels = {
        WORKER_LABEL: worker_id,
        _TASK_LABEL: spec.key.task_id,
        _ATTEMPT_LABEL: str(spec.key.attempt),
        _LOG_LIMIT_LABEL: str(spec.log_limit_bytes),
    }
    if spec.timeout_seconds is not None:
        labels[_TIMEOUT_LABEL] = repr(spec.timeout_seconds)
    return labels


def host_limits(spec: ContainerSpec) -> dict[str, Any]:
    """For ``create_host_config``: what it may take, and as little power as can be. Nothing is mounted."""
    limits: dict[str, Any] = {
        "pids_limit": spec.pids_limit,
        "privileged": False,
        "read_only": spec.read_only,
        # Docker's own default is its bridge; on an engine that has none it is the loopback device.
        "network_mode": "default" if spec.has_network else "none",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "init": True,
        "log_config": {"Type": "json-file", "Config": {"max-size": _LOG_FILE, "max-file": _LOG_FILES}},
    }
    if spec.cpu_cores > 0.0:
        limits["nano_cpus"] = max(round(spec.cpu_cores * _NANO), _NANO // 100)
    if spec.memory_bytes > 0:
        # As much with swap as without: no swap.
        limits["mem_limit"] = limits["memswap_limit"] = spec.memory_bytes
    if spec.gpu_uuids:
        limits["device_requests"] = [
            {"Driver": "", "Count": 0, "DeviceIDs": list(spec.gpu_uuids), "Capabilities": [["gpu"]], "Options": {}}
        ]
    return limits


def key_of(labels: Mapping[str, str], worker_id: str) -> AttemptKey | None:
    """The attempt that a container is of; ``None`` where it is none of this worker's."""
    if labels.get(WORKER_LABEL) != worker_id or not labels.get(_TASK_LABEL):
        return None
    attempt = labels.get(_ATTEMPT_LABEL, "")
    return AttemptKey(labels[_TASK_LABEL], int(attempt)) if attempt.isascii() and attempt.isdigit() else None


def listed(summaries: Sequence[Mapping[str, Any]], worker_id: str) -> list[Container]:
    """Those of ``GET /containers/json`` that are this worker's."""
    found = []
    for summary in summaries:
        key = key_of(summary.get("Labels") or {}, worker_id)
        if key is not None:
            status = _STATUS.get(str(summary.get("State")), Status.RUNNING)
            found.append(Container(str(summary["Id"]), key, status))
    return found


def inspected(details: Mapping[str, Any], key: AttemptKey) -> Container:
    """What ``GET /containers/{id}/json`` says."""
    state, labels = details["State"], details["Config"].get("Labels") or {}
    status = _STATUS.get(str(state["Status"]), Status.RUNNING)
    timeout = labels.get(_TIMEOUT_LABEL)
    return Container(
        container_id=str(details["Id"]),
        key=key,
        status=status,
        started_at=_unix_seconds(state.get("StartedAt")),
        finished_at=_unix_seconds(state.get("FinishedAt")),
        exit_code=int(state["ExitCode"]) if status is Status.ENDED else None,
        oom_killed=bool(state.get("OOMKilled")),
        memory_bytes=int((details.get("HostConfig") or {}).get("Memory") or 0),
        timeout_seconds=float(timeout) if timeout else None,
        log_limit_bytes=int(labels.get(_LOG_LIMIT_LABEL) or DEFAULT_LOG_LIMIT_BYTES),
    )


def usage_of(stats: Mapping[str, Any], at: float) -> Usage:
    """Memory as the docker command counts it: without the page cache that can be given back."""
    cpu = (stats.get("cpu_stats") or {}).get("cpu_usage") or {}
    memory = stats.get("memory_stats") or {}
    nanoseconds: int | None = cpu.get("total_usage")
    used: int | None = memory.get("usage")
    details: Mapping[str, int] = memory.get("stats") or {}
    reclaimable = details.get("total_inactive_file") or details.get("inactive_file") or 0
    return Usage(
        cpu_seconds=None if nanoseconds is None else nanoseconds / _NANO,
        memory_bytes=None if used is None else max(used - reclaimable, 0),
        at=at,
    )


def _unix_seconds(text: str | None) -> float | None:
    """Docker writes nanoseconds, and the year 1 for what has not happened."""
    if not text or text.startswith("0001-"):
        return None
    seconds, _, rest = text.partition(".")
    fraction = rest.rstrip("Z")[:6] or "0"
    return datetime.fromisoformat(f"{seconds.rstrip('Z')}+00:00").timestamp() + float(f"0.{fraction}")
