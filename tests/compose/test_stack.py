"""The stack of docker-compose.yml on a real Docker Engine, and the way of an alert through it."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from fleetpulse.master.config import parse_duration
from tests.compose.images import load_images
from tests.compose.stack import SERVICES, WORKER_ID, Message, Stack, wait_for
from tests.docker_engine import IMAGE, Engine, IsolatedEngine, isolated_engine
from tests.monitoring.rules import ALERTS, MONITORING
from tests.tools import require_tool

# The first run on a machine makes the base image, which takes minutes on a busy machine.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]

ALERT = "FleetPulseWorkerInactive"
SIMULATED = 10
INACTIVITY_TIMEOUT = "5s"
GROUP_INTERVAL = "10s"
SLACK_SECONDS = 20.0
"""For a busy machine."""


def settings_of(file: str) -> dict[str, Any]:
    content = yaml.safe_load((MONITORING / file).read_text())
    assert isinstance(content, dict)
    return content


def seconds(text: str) -> float:
    return parse_duration("a duration of Prometheus", text)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The engine of the machine, which may have image layers already, otherwise a new one."""
    require_tool("docker-compose")  # before anything that takes long
    engine = Engine(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    if engine.host.startswith("unix://") and engine.answers():
        engine.load_image()
        yield engine
        return
    # The engine needs a program of this name to give containers a name server.
    iptables = tmp_path_factory.mktemp("bin") / "iptables"
    iptables.write_text(f'#!/bin/sh\nexec {require_tool("iptables-nft")} "$@"\n')
    iptables.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{iptables.parent}{os.pathsep}{os.environ['PATH']}")
        with isolated_engine() as engine:
            yield engine


@pytest.fixture(scope="module")
def stack(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running stack with a short inactivity timeout, and a short group interval for resolved alerts."""
    folder = tmp_path_factory.mktemp("stack")
    alertmanager = settings_of("alertmanager.yml")
    alertmanager["route"]["group_interval"] = GROUP_INTERVAL
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(alertmanager))
    load_images(engine)
    stack = Stack(
        engine, folder, HEARTBEAT_INTERVAL="1s", INACTIVITY_TIMEOUT=INACTIVITY_TIMEOUT,
        SIMULATED_WORKERS=str(SIMULATED), SIMULATED_GPUS="2", ALERTMANAGER_CONFIG=str(folder / "alertmanager.yml"),
    )  # fmt: skip
    try:
        stack.compose("up", "--build", "--detach", *SERVICES)
        stack.sign_in()
        yield stack
    finally:
        stack.close()


def test_every_service_becomes_healthy(stack: Stack) -> None:
    healthy = dict.fromkeys(set(SERVICES) - {"webhook"}, "healthy")
    wait_for(lambda: stack.health() == healthy, 90.0)


def test_master_requires_a_token(stack: Stack) -> None:
    assert requests.get(f"{stack.url('MASTER_HTTP')}/workers", timeout=10).status_code == 401
    assert stack.json("MASTER_HTTP", "/api/session") == {"name": "test", "role": "admin", "auth_method": "token"}


def test_no_process_runs_as_root(stack: Stack) -> None:
    users = stack.users()
    assert users.keys() == set(SERVICES)
    assert {service: found for service, found in users.items() if "0" in found} == {}


def test_prometheus_has_the_master_the_simulated_fleet_and_this_machine(engine: Engine, stack: Stack) -> None:
    wait_for(lambda: stack.value('up{job="fleetpulse"}') == 1.0, 40.0)
    wait_for(lambda: stack.value('sum(fleetpulse_worker_up{worker_id=~"sim-.*"})') == SIMULATED, 40.0)
    assert stack.value('count(fleetpulse_worker_gpu_temperature_celsius{worker_id=~"sim-.*"})') == SIMULATED
    assert stack.value(f'fleetpulse_worker_memory_size_bytes{{worker_id="{WORKER_ID}"}}') == memory_bytes(engine)


def memory_bytes(engine: Engine) -> int:
    """Returns the memory of the machine, which the worker in its container also reports. An engine in namespaces of its
    own does not have the machine's processes, so there the worker reports the limit of its container."""
    if isinstance(engine, IsolatedEngine):
        return 2 * 1024**3
    (line,) = [line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:")]
    return int(line.split()[1]) * 1024


def test_task_runs_on_this_machine_through_the_docker_socket(stack: Stack) -> None:
    body = {"docker_image": IMAGE, "command": ["echo", "hello"], "cpu_required": 0.1, "memory_required": 32}
    task = stack.post("/api/tasks", body)
    path = f"/api/tasks/{task['task_id']}"
    ended = wait_for(
        lambda: found if (found := stack.json("MASTER_HTTP", path))["status"] == "completed" else None, 60.0
    )
    assert ended["worker_id"] == WORKER_ID


def test_alert_about_a_killed_worker_is_sent_in_time_and_resolved_when_it_is_back(
    stack: Stack,
) -> None:
    wait_for(lambda: stack.value(f'fleetpulse_worker_up{{worker_id="{WORKER_ID}"}}') == 1.0, 40.0)
    stack.container("worker").kill()
    killed = time.time()

    # Inactive, scraped, evaluated, pending, evaluated again, and grouped with other alerts.
    prometheus, group_wait = (
        settings_of("prometheus.yml")["global"],
        settings_of("alertmanager.yml")["route"]["group_wait"],
    )
    pending = seconds(ALERTS[ALERT].pending)
    round_trip = seconds(prometheus["scrape_interval"]) + 2 * seconds(prometheus["evaluation_interval"])
    within = seconds(INACTIVITY_TIMEOUT) + round_trip + pending + seconds(group_wait) + SLACK_SECONDS
    fired = wait_for(lambda: first_message(stack, "firing"), within)
    assert killed + pending < fired.time < killed + within
    assert fired.receiver == "team"
    assert fired.labels.items() >= {"worker_id": WORKER_ID, "severity": ALERTS[ALERT].labels["severity"]}.items()
    # The user killed it, so the engine does not restart it.
    assert stack.container("worker").status == "exited"
    assert {m.labels.get("worker_id") for m in stack.messages() if m.labels["alertname"] == ALERT} == {WORKER_ID}

    stack.compose("up", "--detach", "worker")
    resolved = wait_for(
        lambda: first_message(stack, "resolved"), round_trip + seconds(GROUP_INTERVAL) + 2 * SLACK_SECONDS
    )
    assert resolved.time > fired.time


def first_message(stack: Stack, status: str) -> Message | None:
    """Returns the first message with this status about the worker."""
    for message in stack.messages():
        if (
            message.status == status
            and message.labels["alertname"] == ALERT
            and message.labels["worker_id"] == WORKER_ID
        ):
            return message
    return None
