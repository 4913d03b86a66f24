"""The examples of docs/extending.md, as an operator would use them."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.masters import FAST_LEASE_FLAGS, READY_SECONDS, Master, MasterClient, started_master
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST, free_port
from tests.tools import ROOT

pytestmark = pytest.mark.e2e

EXAMPLES = ROOT / "docs" / "examples"
PAGE = ROOT / "docs" / "extending.md"
WORKER_ID = "rack-7"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example distribution, installed by pip."""
    folder = tmp_path_factory.mktemp("site")
    source = Path(shutil.copytree(EXAMPLES / "site_plugins", folder / "source"))
    target = folder / "installed"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--target", target, source], check=True, capture_output=True)
    return target


@pytest.fixture(scope="module")
def master(shared_processes: Processes, site: Path) -> Iterator[Master]:
    """A master with the placement policy of the example."""
    master = started_master(shared_processes, *FAST_LEASE_FLAGS, "--placement", "spread", PYTHONPATH=str(site))
    yield master
    master.close()
    master.assert_no_errors()


def test_custom_metrics_by_plugin_command_and_file(
    shared_processes: Processes, master: Master, site: Path, tmp_path: Path
) -> None:
    worker = shared_processes.worker(
        master.target, "--worker-id", WORKER_ID, "--no-tasks", "--metrics-dir", str(EXAMPLES / "commands"),
        "--metrics-interval", "1", "--textfile-dir", str(tmp_path), PYTHONPATH=str(site),
    )  # fmt: skip
    subprocess.run([EXAMPLES / "textfile" / "backup-done", tmp_path, "database", "12345"], check=True)

    def shown(name: str) -> dict[tuple[str, ...], float]:
        return master.samples(f"fleetpulse_custom_{name}")

    eventually(lambda: shown("file_handles_used").get((WORKER_ID,), 0.0) > 0)
    eventually(lambda: any(WORKER_ID in labels for labels in shown("processes")))
    assert eventually(lambda: shown("backup_size_bytes")) == {("database", WORKER_ID): 12345.0}
    reports = {report["collector"]: report["error"] for report in master.json(f"/telemetry/{WORKER_ID}")["collectors"]}
    own = {"plugin:file-handles", "command:processes", "textfile", "textfile:backup-database.prom"}
    assert {name: reports[name] for name in own} == dict.fromkeys(own)
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0


@pytest.mark.parametrize("flags", [["--no-plugins"], ["--skip-plugin", "file-handles"]])
def test_plugin_can_be_switched_off(processes: Processes, master: Master, site: Path, flags: list[str]) -> None:
    processes.worker(master.target, "--worker-id", "without", "--no-tasks", *flags, PYTHONPATH=str(site))
    eventually(lambda: master.get("/telemetry/without").ok)
    record = eventually(lambda: [record for record in [master.json("/telemetry/without")] if record["collectors"]])[0]
    assert not [report for report in record["collectors"] if report["collector"].startswith("plugin:")]


def test_custom_placement_policy_places_tasks(shared_processes: Processes, master: Master) -> None:
    shared_processes.simulate(master.target, 4, "--prefix", "sim", "--gpu-share", "0")
    machines = eventually(
        lambda: [worker for worker in master.json("/api/workers") if worker["tasks"]["accepted"]][3:] and [
            worker for worker in master.json("/api/workers") if worker["tasks"]["accepted"]
        ]
    )  # fmt: skip
    cores = {worker["worker_id"]: worker["available"]["cpu_cores"] for worker in machines}
    widest = max(cores, key=lambda worker_id: (cores[worker_id], worker_id))
    assert len(set(cores.values())) > 1
    answer = master.session.post(master.url + "/api/tasks", json={"docker_image": "busybox"}, timeout=10)
    task_id = answer.json()["task_id"]
    placed_on = eventually(lambda: master.json(f"/api/tasks/{task_id}")["worker_id"])
    # The default policy chooses the machine with the least free resources.
    assert placed_on == widest


def test_missing_placement_policy_ends_the_master_with_one_line(processes: Processes) -> None:
    ended = processes.run(
        sys.executable, "-m", "fleetpulse.master", "--placement", "nobody", "--http-port", "0", "--grpc-port", "0"
    )
    assert ended.code == 2
    assert ended.error_line() == "FLEETPULSE_PLACEMENT='nobody': no such policy is installed; there is best-fit"


def test_custom_master_stores_readings(processes: Processes, tmp_path: Path) -> None:
    http_port, grpc_port = free_port(), free_port()
    readings = tmp_path / "readings.jsonl"
    master = processes.start(
        "custom", sys.executable, str(EXAMPLES / "custom_master.py"),
        HTTP_PORT=str(http_port), GRPC_PORT=str(grpc_port), READINGS=str(readings), PYTHONPATH=str(ROOT),
    )  # fmt: skip
    client = MasterClient(http_port)
    eventually(client.is_healthy, READY_SECONDS)
    processes.simulate(f"{LOCALHOST}:{grpc_port}", 3, "--no-tasks")
    eventually(lambda: readings.exists() and readings.read_text().count("\n") >= 3)
    client.close()
    master.send(signal.SIGTERM)
    assert master.wait() == 0
    lines = [json.loads(line) for line in readings.read_text().splitlines()]
    assert {line["worker_id"] for line in lines} == {"sim-1", "sim-2", "sim-3"}
    assert all(0.0 <= line["cpu_usage"] <= 100.0 for line in lines)
    assert "Traceback" not in master.err


def test_page_shows_the_examples_unchanged() -> None:
    text = PAGE.read_text()
    shown = re.findall(r"\]\((examples/[^)]*)\)[^`]*?:\n\n```\w+\n(.*?)```", text, re.DOTALL)
    assert len(shown) >= 6
    for path, code in shown:
        assert code.rstrip() in (PAGE.parent / path).read_text(), path
    files = {str(path.relative_to(PAGE.parent)) for path in EXAMPLES.rglob("*") if path.is_file()}
    assert {path for path in files if "__" not in path} == {path for path, _ in shown}
