"""worker.docker_engine.containers: between what is asked for and Docker's JSON."""

from typing import Any

import pytest

from fleetpulse.worker.docker_engine.containers import host_limits, inspected, key_of, labels_of, listed, usage_of
from fleetpulse.worker.tasks.engine import AttemptKey, ContainerSpec, Status, Usage

KEY = AttemptKey("t", 2)


def details(**state: object) -> dict[str, Any]:
    labels = labels_of(ContainerSpec(KEY, "busybox", timeout_seconds=2.5, log_limit_bytes=77), "w")
    known = {"Status": "exited", "ExitCode": 3, "OOMKilled": False, "StartedAt": "2026-01-02T03:04:05.123456789Z",
             "FinishedAt": "2026-01-02T03:04:06Z"}  # fmt: skip
    return {"Id": "c0ffee", "State": known | state, "Config": {"Labels": labels}, "HostConfig": {"Memory": 4096}}


def test_all_that_the_next_incarnation_must_know_comes_back() -> None:
    container = inspected(details(), KEY)
    assert (container.status, container.exit_code, container.oom_killed) == (Status.ENDED, 3, False)
    assert (container.timeout_seconds, container.log_limit_bytes, container.memory_bytes) == (2.5, 77, 4096)
    assert container.started_at is not None
    assert container.finished_at is not None
    assert container.finished_at - container.started_at == pytest.approx(0.876544)


def test_the_year_one_is_never() -> None:
    container = inspected(details(Status="created", StartedAt="0001-01-01T00:00:00Z", FinishedAt=""), KEY)
    assert container.status is Status.CREATED
    assert (container.started_at, container.finished_at, container.exit_code) == (None, None, None)


@pytest.mark.parametrize("status", ["running", "paused", "restarting", "removing"])
def test_what_has_a_process_runs(status: str) -> None:
    assert inspected(details(Status=status), KEY).status is Status.RUNNING


def test_containers_of_others_are_none_of_ours() -> None:
    labels = labels_of(ContainerSpec(KEY, "busybox"), "w")
    assert key_of(labels, "w") == KEY
    assert key_of(labels, "another") is None
    assert key_of({}, "w") is None
    assert key_of(labels | {"fleetpulse.attempt": "-1"}, "w") is None
    summaries: list[dict[str, Any]] = [
        {"Id": "1", "Labels": labels, "State": "exited"},
        {"Id": "2", "Labels": labels_of(ContainerSpec(KEY, "busybox"), "another"), "State": "running"},
        {"Id": "3", "Labels": None, "State": "running"},
    ]
    assert [(container.container_id, container.status) for container in listed(summaries, "w")] == [("1", Status.ENDED)]


def test_what_is_not_limited_is_not_asked_for() -> None:
    limits = host_limits(ContainerSpec(KEY, "busybox"))
    assert not {"nano_cpus", "mem_limit", "memswap_limit", "device_requests"} & set(limits)
    limits = host_limits(ContainerSpec(KEY, "busybox", cpu_cores=0.001, gpu_uuids=("GPU-1", "GPU-2")))
    assert limits["nano_cpus"] == 10_000_000  # Docker takes no less
    (request,) = limits["device_requests"]
    assert request["DeviceIDs"] == ["GPU-1", "GPU-2"]


@pytest.mark.parametrize("name", ["total_inactive_file", "inactive_file"])
def test_memory_without_the_cache_that_can_be_given_back(name: str) -> None:
    stats = {"cpu_stats": {"cpu_usage": {"total_usage": 1_500_000_000}},
             "memory_stats": {"usage": 1000, "stats": {name: 300}}}  # fmt: skip
    assert usage_of(stats, 7.0) == Usage(1.5, 700, 7.0)


def test_a_reading_that_is_missing_is_absent() -> None:
    assert usage_of({"cpu_stats": {}, "memory_stats": {}}, 7.0) == Usage(None, None, 7.0)
    assert Usage(None, 1, 2.0).cpu_percent_since(Usage(1.0, 1, 1.0)) is None
    assert Usage(2.0, 1, 1.0).cpu_percent_since(Usage(1.0, 1, 1.0)) is None
    assert Usage(2.0, 1, 2.0).cpu_percent_since(Usage(1.5, 1, 1.0)) == 50.0
