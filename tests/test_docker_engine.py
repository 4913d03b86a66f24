"""tests.docker_engine: the engine that other tests rely on."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.docker_engine import WORKER_LABEL, Engine, own_engine

pytestmark = pytest.mark.e2e


def test_it_runs_what_it_is_told(docker_engine: Engine) -> None:
    with docker_engine.client() as client:
        output = client.containers.run(docker_engine.image, ["echo", "hello"], remove=True)
    assert output == b"hello\n"


def test_it_removes_the_containers_of_one_worker(docker_engine: Engine) -> None:
    with docker_engine.client() as client:
        for worker_id in ("engine-test-a", "engine-test-b"):
            client.containers.create(docker_engine.image, ["true"], labels={WORKER_LABEL: worker_id})
    docker_engine.remove_containers("engine-test-a")
    assert docker_engine.containers("engine-test-a") == []
    assert len(docker_engine.containers("engine-test-b")) == 1
    docker_engine.remove_containers("engine-test-b")


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_one_that_restores_keeps_its_containers_over_a_restart(end: str) -> None:
    with own_engine(live_restore=True) as engine:
        with engine.client() as client:
            container_id = client.containers.run(engine.image, ["sleep", "1000"], detach=True).id
        getattr(engine, end)()
        assert not engine.answers()
        engine.start()
        with engine.client() as client:
            container = client.containers.get(str(container_id))
            assert container.status == "running"
            pid = container.attrs["State"]["Pid"]
        assert psutil.pid_exists(pid)
        folder = engine.folder
    assert not folder.exists()
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_it_ends_with_the_process_that_started_it() -> None:
    script = (
        "import sys, time; from tests.docker_engine import OwnEngine; engine = OwnEngine(); engine.start(); "
        "print(engine.host, (engine.folder / 'pid').read_text(), flush=True); time.sleep(1000)"
    )
    with own_engine():  # skips where there can be none
        pass
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        host, pid = process.stdout.readline().split()
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20.0
    while psutil.pid_exists(int(pid)) and psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not Engine(host).answers()
    shutil.rmtree(Path(host.removeprefix("unix://")).parent)
