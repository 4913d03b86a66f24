"""tests.docker_engine, which other tests rely on."""

from pathlib import Path

import psutil
import pytest

from tests.docker_engine import WORKER_LABEL, Engine, isolated_engine

pytestmark = pytest.mark.e2e


def test_container_runs_and_its_output_is_read(docker_engine: Engine) -> None:
    with docker_engine.client() as client:
        output = client.containers.run(docker_engine.image, ["echo", "hello"], remove=True)
    assert output == b"hello\n"


def test_command_runs_in_a_running_container(docker_engine: Engine) -> None:
    with docker_engine.client() as client:
        container = client.containers.run(docker_engine.image, ["sleep", "1000"], detach=True)
        try:
            assert container.exec_run(["echo", "hello"]) == (0, b"hello\n")
        finally:
            container.remove(force=True)


def test_only_the_containers_of_one_worker_are_removed(docker_engine: Engine) -> None:
    with docker_engine.client() as client:
        for worker_id in ("engine-test-a", "engine-test-b"):
            client.containers.create(docker_engine.image, ["true"], labels={WORKER_LABEL: worker_id})
    docker_engine.remove_containers("engine-test-a")
    assert docker_engine.containers("engine-test-a") == []
    assert len(docker_engine.containers("engine-test-b")) == 1
    docker_engine.remove_containers("engine-test-b")


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_containers_survive_a_restart_with_live_restore(end: str) -> None:
    with isolated_engine(live_restore=True) as engine:
        with engine.client() as client:
            container_id = client.containers.run(engine.image, ["sleep", "1000"], detach=True).id
        getattr(engine, end)()
        assert not engine.answers()
        engine.start()
        with engine.client() as client:
            container = client.containers.get(str(container_id))
            assert container.status == "running"
            pid = engine.host_pid(container)
        assert psutil.pid_exists(pid)
        folder = engine.folder
    assert not folder.exists()
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_isolated_engine_sees_no_link_of_the_machine() -> None:
    with isolated_engine() as engine, engine.client() as client:
        output = client.containers.run(engine.image, ["ls", "/sys/class/net"], network_mode="host", remove=True)
    assert output.split() == [b"lo"]


def test_isolated_engine_cannot_write_outside_its_folder(tmp_path: Path) -> None:
    with isolated_engine() as engine, engine.client() as client:
        output = client.containers.run(
            engine.image, ["sh", "-c", "touch /host/file 2>&1 || true"],
            volumes={str(tmp_path.parent): {"bind": "/host"}}, remove=True,
        )  # fmt: skip
    assert b"Read-only file system" in output
