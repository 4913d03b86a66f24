"""worker.docker_engine.containers"""

from typing import Any

import pytest

from fleetpulse.worker.docker_engine.containers import (
    attempt_key,
    container_info,
    container_labels,
    container_settings,
    container_usage,
    containers_of_worker,
    host_config,
)
from fleetpulse.worker.docker_engine.ownership import ContainerOwner
from fleetpulse.worker.tasks.container_spec import AttemptKey, ContainerSpec
from fleetpulse.worker.tasks.engine import ContainerInfo, ContainerStatus, ContainerUsage

KEY = AttemptKey("t", 2)
OWNER = ContainerOwner("w")


def details(**state: object) -> dict[str, Any]:
    labels = container_labels(ContainerSpec(KEY, "busybox", timeout_seconds=2.5, log_limit_bytes=77), OWNER)
    known = {"Status": "exited", "ExitCode": 3, "OOMKilled": False, "StartedAt": "2026-01-02T03:04:05.123456789Z",
             "FinishedAt": "2026-01-02T03:04:06Z"}  # fmt: skip
    return {
        "Id": "c0ffee", "Name": "/fleetpulse-t-2", "State": known | state, "Config": {"Labels": labels},
        "HostConfig": {"Memory": 4096},
    }  # fmt: skip


def test_labels_restore_the_attempt() -> None:
    container = container_info(details(), KEY)
    assert (container.status, container.exit_code, container.oom_killed) == (ContainerStatus.ENDED, 3, False)
    assert (container.timeout_seconds, container.log_limit_bytes, container.memory_bytes) == (2.5, 77, 4096)
    assert container.started_at is not None
    assert container.finished_at is not None
    assert container.finished_at - container.started_at == pytest.approx(0.876544)


def test_year_one_means_never() -> None:
    container = container_info(details(Status="created", StartedAt="0001-01-01T00:00:00Z", FinishedAt=""), KEY)
    assert container.status is ContainerStatus.CREATED
    assert (container.started_at, container.finished_at, container.exit_code) == (None, None, None)


@pytest.mark.parametrize("status", ["running", "paused", "restarting", "removing"])
def test_status_with_a_process_is_running(status: str) -> None:
    assert container_info(details(Status=status), KEY).status is ContainerStatus.RUNNING


def test_a_container_is_owned_by_name_secret_and_noted_id() -> None:
    owner = ContainerOwner("w")
    labels = container_labels(ContainerSpec(KEY, "busybox"), owner)
    mine = {"Id": "1", "Names": ["/fleetpulse-t-2"], "Labels": labels, "State": "exited"}
    owner.note("1")
    assert containers_of_worker([mine], owner) == [ContainerInfo("1", KEY, ContainerStatus.ENDED)]
    foreign: list[dict[str, Any]] = [
        mine | {"Id": "2"},  # never noted, and it ran
        mine | {"Names": ["/fleetpulse-t-1"]},
        mine | {"Names": ["/x"]},
        mine | {"Labels": None},
        mine | {"Labels": labels | {"fleetpulse.attempt": "-1"}},
        mine | {"Labels": labels | {"fleetpulse.owner": ContainerOwner("w").secret}},
        mine | {"Labels": labels | {"fleetpulse.worker_id": "another"}},
    ]
    assert containers_of_worker(foreign, owner) == []
    # Its worker may have died between the creation and the note.
    created = mine | {"Id": "3", "State": "created"}
    assert [container.container_id for container in containers_of_worker([created], owner)] == ["3"]
    assert attempt_key(details(), OWNER) is None
    assert attempt_key(details(Status="created"), OWNER) == KEY


def test_every_label_is_set() -> None:
    """One that is not set would be the image's."""
    full = ContainerSpec(KEY, "busybox", timeout_seconds=1.0)
    assert container_labels(ContainerSpec(KEY, "busybox"), OWNER).keys() == container_labels(full, OWNER).keys()


def test_host_config_has_only_requested_limits() -> None:
    config = host_config(ContainerSpec(KEY, "busybox"))
    assert (config["read_only"], config["network_mode"]) == (False, "default")
    assert not {"nano_cpus", "mem_limit", "memswap_limit", "device_requests"} & set(config)
    config = host_config(ContainerSpec(KEY, "busybox", cpu_cores=0.001, gpu_uuids=("GPU-1", "GPU-2")))
    assert config["nano_cpus"] == 10_000_000  # Docker takes no less
    (request,) = config["device_requests"]
    assert request["DeviceIDs"] == ["GPU-1", "GPU-2"]


@pytest.mark.parametrize(("gpus", "visible"), [((), "void"), (("GPU-1", "GPU-2"), "GPU-1,GPU-2")])
def test_visible_devices_are_the_tasks_own(gpus: tuple[str, ...], visible: str) -> None:
    environment = container_settings(ContainerSpec(KEY, "busybox", gpu_uuids=gpus), OWNER)["environment"]
    assert environment == {"NVIDIA_VISIBLE_DEVICES": visible, "AMD_VISIBLE_DEVICES": ""}


def test_environment_of_a_task_does_not_change_its_devices() -> None:
    """Both ends refuse such names; if one is forgotten, the worker's value still counts."""
    spec = ContainerSpec(KEY, "busybox", env={"NVIDIA_VISIBLE_DEVICES": "all", "AMD_VISIBLE_DEVICES": "all"})
    environment = container_settings(spec, OWNER)["environment"]
    assert environment == {"NVIDIA_VISIBLE_DEVICES": "void", "AMD_VISIBLE_DEVICES": ""}


@pytest.mark.parametrize(("network", "mode"), [("bridge", "default"), ("none", "none")])
def test_host_config_has_the_requested_confinement(network: str, mode: str) -> None:
    config = host_config(ContainerSpec(KEY, "busybox", read_only=True, network=network))
    assert (config["read_only"], config["network_mode"]) == (True, mode)


@pytest.mark.parametrize("name", ["total_inactive_file", "inactive_file"])
def test_memory_excludes_reclaimable_cache(name: str) -> None:
    stats = {"cpu_stats": {"cpu_usage": {"total_usage": 1_500_000_000}},
             "memory_stats": {"usage": 1000, "stats": {name: 300}}}  # fmt: skip
    assert container_usage(stats, 7.0) == ContainerUsage(1.5, 700, 7.0)


def test_missing_usage_is_none() -> None:
    assert container_usage({"cpu_stats": {}, "memory_stats": {}}, 7.0) == ContainerUsage(None, None, 7.0)
    assert ContainerUsage(None, 1, 2.0).cpu_percent_since(ContainerUsage(1.0, 1, 1.0)) is None
    assert ContainerUsage(2.0, 1, 1.0).cpu_percent_since(ContainerUsage(1.0, 1, 1.0)) is None
    assert ContainerUsage(2.0, 1, 2.0).cpu_percent_since(ContainerUsage(1.5, 1, 1.0)) == 50.0
