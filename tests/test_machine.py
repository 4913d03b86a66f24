"""The tests leave the machine as they found it: a Docker Engine of their own, PostgreSQL, also after ``kill -9``."""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.docker_engine import own_engine
from tests.e2e.waiting import eventually
from tests.machine import machine_state, marked_processes
from tests.postgres import running_postgres
from tests.tools import ROOT

pytestmark = pytest.mark.e2e

ENGINE = """
import sys
from tests.docker_engine import own_engine
with own_engine() as engine:
    with engine.client() as client:
        client.networks.create("outside", driver="bridge")
        client.containers.run(engine.image, ["sleep", "1000"], detach=True, network="outside", mem_limit=64 * 2**20)
    print(engine.folder, flush=True)
    sys.stdin.read()
"""
POSTGRES = """
import sys
from tests.postgres import running_postgres
with running_postgres() as server:
    print(server.folder, flush=True)
    sys.stdin.read()
"""


def leaves_nothing(script: str, end: str) -> None:
    """Run a script until it has printed its folder, end it, and compare the machine before and after."""
    before = machine_state()
    marker = f"FLEETPULSE_TEST_RUN={uuid.uuid4()}"
    name, _, value = marker.partition("=")
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT, env=os.environ | {name: value}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as runner:  # fmt: skip
        assert runner.stdout is not None
        folder = Path(runner.stdout.readline().strip())
        assert folder.is_dir()
        assert len(marked_processes(marker)) > 1
        if end == "kill":
            runner.send_signal(signal.SIGKILL)
        else:
            runner.communicate()
            assert runner.returncode == 0
    eventually(lambda: not folder.exists(), 20.0)
    eventually(lambda: not marked_processes(marker) and not marked_processes(folder.name), 20.0)
    assert not [*Path("/sys/fs/cgroup").glob(f"**/{folder.name}")]
    assert machine_state() == before


@pytest.mark.parametrize("end", ["close", "kill"])
def test_own_docker_engine_leaves_nothing(end: str) -> None:
    with own_engine():  # skips where there can be none
        pass
    leaves_nothing(ENGINE, end)


@pytest.mark.parametrize("end", ["close", "kill"])
def test_postgres_leaves_nothing(end: str) -> None:
    with running_postgres():  # skips where there can be none
        pass
    leaves_nothing(POSTGRES, end)


def test_own_docker_engine_sees_no_link_of_the_machine() -> None:
    with own_engine() as engine, engine.client() as client:
        said = client.containers.run(engine.image, ["ls", "/sys/class/net"], network_mode="host", remove=True)
    assert said.split() == [b"lo"]


def test_own_docker_engine_cannot_write_outside_its_folder(tmp_path: Path) -> None:
    with own_engine() as engine, engine.client() as client:
        said = client.containers.run(
            engine.image, ["sh", "-c", "touch /host/file 2>&1 || true"],
            volumes={str(tmp_path.parent): {"bind": "/host"}}, remove=True,
        )  # fmt: skip
    assert b"Read-only file system" in said
