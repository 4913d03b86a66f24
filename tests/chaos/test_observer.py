"""Events of dockerd are recorded with times and exit codes."""

from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container

from tests.chaos import history
from tests.chaos.history import Recorder
from tests.chaos.observer import DockerObserver, remove_containers
from tests.docker_engine import Engine
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

WORKER_ID = "observed-1"


@pytest.fixture
def client(docker_engine: Engine) -> Iterator[docker.DockerClient]:
    with docker_engine.client() as client:
        yield client
    remove_containers(docker_engine.host, [WORKER_ID, "another-worker"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.jsonl"


@pytest.fixture
def observer(docker_engine: Engine, path: Path) -> Iterator[DockerObserver]:
    with Recorder(path) as recorder, DockerObserver(docker_engine.host, [WORKER_ID], recorder) as observer:
        yield observer


def run(client: docker.DockerClient, command: str, worker_id: str = WORKER_ID) -> Container:
    labels = {"fleetpulse.worker_id": worker_id, "fleetpulse.task_id": "task-1", "fleetpulse.attempt": "2"}
    return client.containers.run(
        "fleetpulse-busybox:test", ["sh", "-c", command], labels=labels, detach=True, network_mode="none"
    )


def events(path: Path) -> list[history.ContainerEvent]:
    return list(history.of_type(history.load(path), history.ContainerEvent))


def test_container_events_are_recorded_from_create_to_destroy(
    client: docker.DockerClient, observer: DockerObserver, path: Path
) -> None:
    container = run(client, "exit 7")
    container.wait()
    container.remove()
    eventually(lambda: len(events(path)) == 4)
    seen = events(path)
    assert [event.action for event in seen] == ["create", "start", "die", "destroy"]
    assert {(event.container_id, event.task_id, event.attempt) for event in seen} == {(container.id, "task-1", 2)}
    assert [event.exit_code for event in seen] == [None, None, 7, None]
    assert [event.time for event in seen] == sorted(event.time for event in seen)


def test_running_and_remaining_containers_are_known(
    client: docker.DockerClient, observer: DockerObserver, path: Path
) -> None:
    container = run(client, "sleep 60")
    eventually(lambda: observer.running == {container.id: WORKER_ID})
    assert observer.list_containers() == {container.id: "running"}
    eventually(lambda: events(path)[-1].pid is not None)
    container.remove(force=True)
    eventually(lambda: observer.list_containers() == {} and observer.has_seen_all_ends())
    assert observer.running == {}
    assert observer.is_alive


def test_containers_of_other_workers_are_ignored(
    client: docker.DockerClient, observer: DockerObserver, path: Path
) -> None:
    other, own = run(client, "sleep 60", "another-worker"), run(client, "sleep 60")
    eventually(lambda: observer.running == {own.id: WORKER_ID})
    assert observer.list_containers() == {own.id: "running"}
    assert str(other.id) not in path.read_text()
