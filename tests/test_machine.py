"""The Docker Engine, PostgreSQL, masters and workers of tests leave nothing on the machine, even after ``kill -9``."""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.docker_engine import isolated_engine
from tests.e2e.waiting import eventually
from tests.machine import machine_state, marked_processes
from tests.postgres import running_postgres
from tests.tools import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.parametrize("end", ["close", "kill"])]

ENGINE = """
import sys
from tests.docker_engine import isolated_engine
with isolated_engine() as engine:
    with engine.client() as client:
        client.networks.create("outside", driver="bridge")
        client.containers.run(engine.image, ["sleep", "1000"], detach=True, network="outside", mem_limit=64 * 2**20)
    print("folder:", engine.folder, flush=True)
    sys.stdin.read()
"""
POSTGRES = """
import sys
from tests.postgres import running_postgres
with running_postgres() as server:
    print("folder:", server.folder, flush=True)
    sys.stdin.read()
"""
PROCESSES = """
import sys
from tests.e2e.masters import started_master
from tests.e2e.processes import Processes
from tests.guardian import guarded_run
with guarded_run("fleetpulse-tests-") as folder:
    processes = Processes(folder)
    processes.worker(started_master(processes).target)
    print("folder:", folder, flush=True)
    sys.stdin.read()
    processes.close()
"""
IN_PYTEST = """
import sys, tempfile
from tests.e2e.masters import started_master
from tests.e2e.processes import Processes

def test_something(tmp_path):
    processes = Processes(tmp_path)
    processes.worker(started_master(processes).target)
    print()
    print("folder:", tempfile.gettempdir(), flush=True)
    sys.stdin.read()
    processes.close()
"""


def assert_leaves_nothing(end: str, *command: str | Path) -> None:
    """Runs a program until it prints its folder, ends it, and compares the machine before and after."""
    before = machine_state()
    marker = f"MARKER={uuid.uuid4()}"
    name, _, value = marker.partition("=")
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT, env=os.environ | {name: value}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as runner:  # fmt: skip
        assert runner.stdout is not None
        lines = iter(runner.stdout.readline, "")
        folder = Path(next(line.removeprefix("folder:").strip() for line in lines if line.startswith("folder:")))
        assert folder.is_dir()
        running = {*marked_processes(marker), *marked_processes(folder.name)}
        assert len(running) > 2  # the program, its guardian, and what they started
        if end == "kill":
            runner.send_signal(signal.SIGKILL)
        else:
            runner.communicate()
            assert runner.returncode == 0
    eventually(lambda: not folder.exists(), 20.0)
    eventually(lambda: not marked_processes(marker) and not marked_processes(folder.name), 20.0)
    assert not [*Path("/sys/fs/cgroup").glob(f"**/{folder.name}")]
    assert machine_state() == before


def test_isolated_docker_engine_leaves_nothing(end: str) -> None:
    with isolated_engine():  # skips where it cannot start
        pass
    assert_leaves_nothing(end, "-c", ENGINE)


def test_postgres_leaves_nothing(end: str) -> None:
    with running_postgres():  # skips where it cannot start
        pass
    assert_leaves_nothing(end, "-c", POSTGRES)


def test_master_and_worker_of_a_benchmark_leave_nothing(end: str) -> None:
    assert_leaves_nothing(end, "-c", PROCESSES)


def test_master_and_worker_of_a_test_leave_nothing(end: str, tmp_path: Path) -> None:
    (test := tmp_path / "test_something.py").write_text(IN_PYTEST)
    project = ("--rootdir", ROOT, "-c", ROOT / "pyproject.toml", "-p", "tests.conftest")
    flags = ("-p", "no:cacheprovider", "--capture=no", "--basetemp", tmp_path / "base")
    assert_leaves_nothing(end, "-m", "pytest", *project, *flags, test)
