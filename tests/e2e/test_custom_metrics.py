"""Custom metrics of an operator, from a real worker to /metrics and REST."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.masters import Master
from tests.e2e.processes import Processes, RunningProcess
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

WORKER_ID = "rack-7"


class CustomWorker:
    """A real worker with a folder of files and two commands."""

    def __init__(self, processes: Processes, master: Master, folder: Path) -> None:
        self.folder, self.master = folder, master
        self.process: RunningProcess = processes.worker(
            master.target, "--worker-id", WORKER_ID, "--no-tasks", "--textfile-dir", str(folder),
            "--metrics-command", "good=printf 'good{a=\"b\"} 5\\n'",
            "--metrics-command", "hangs=sleep 1000", "--metrics-interval", "1",
        )  # fmt: skip

    def write(self, name: str, text: str) -> None:
        new = self.folder / f".{name}.new"
        new.write_text(text)
        new.rename(self.folder / name)

    def exposed(self, name: str) -> dict[tuple[str, ...], float]:
        return self.master.samples(f"fleetpulse_custom_{name}")

    def reported(self, name: str) -> list[float]:
        custom = self.master.json(f"/telemetry/{WORKER_ID}")["custom"]
        return [sample["value"] for sample in custom if sample["name"] == name]

    def errors(self) -> dict[str, str | None]:
        return {
            report["collector"]: report["error"] for report in self.master.json(f"/telemetry/{WORKER_ID}")["collectors"]
        }


@pytest.fixture(scope="module")
def worker(
    shared_processes: Processes, shared_master: Master, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CustomWorker]:
    worker = CustomWorker(shared_processes, shared_master, tmp_path_factory.mktemp("textfile"))
    eventually(lambda: WORKER_ID in shared_master.workers())
    yield worker
    children = worker.process.children()
    worker.process.kill_all()
    assert [child for child in children if child.is_running()] == []
    assert "Traceback" not in worker.process.err


def test_new_changed_broken_and_repaired_text_file_is_followed(worker: CustomWorker) -> None:
    worker.write("raid.prom", '# TYPE raid_degraded gauge\nraid_degraded{array="md0"} 0\n')
    eventually(lambda: worker.exposed("raid_degraded") == {("md0", WORKER_ID): 0.0})
    assert worker.reported("raid_degraded") == [0.0]
    worker.write("raid.prom", '# TYPE raid_degraded gauge\nraid_degraded{array="md0"} 1\n')
    eventually(lambda: worker.exposed("raid_degraded") == {("md0", WORKER_ID): 1.0})
    worker.write("raid.prom", 'raid_degraded{array="md0" 1\n')
    eventually(lambda: worker.exposed("raid_degraded") == {} and worker.reported("raid_degraded") == [])
    assert "line 1 is not Prometheus' text format" in str(worker.errors()["textfile:raid.prom"])
    # Everything else is still there.
    assert worker.errors()["cpu"] is None
    assert worker.exposed("good") == {("b", WORKER_ID): 5.0}
    assert worker.master.samples("fleetpulse_worker_collector_success")["textfile:raid.prom", WORKER_ID] == 0.0
    worker.write("raid.prom", 'raid_degraded{array="md1"} 2\n')
    eventually(lambda: worker.exposed("raid_degraded") == {("md1", WORKER_ID): 2.0})
    assert worker.errors()["textfile:raid.prom"] is None
    assert worker.exposed("textfile_mtime_seconds").keys() == {("raid.prom", WORKER_ID)}


def test_hanging_command_is_killed_and_reported_without_affecting_others(worker: CustomWorker) -> None:
    eventually(lambda: "did not end within 1 s" in str(worker.errors()["command:hangs"]))
    assert worker.reported("good") == [5.0]
    # The command runs once at a time, and leaves no open file in the worker.
    assert len(worker.process.children()) <= 2
    files = psutil.Process(worker.process.pid).num_fds()
    received = worker.master.json(f"/api/workers/{WORKER_ID}")["heartbeats"]["received"]
    eventually(lambda: worker.master.json(f"/api/workers/{WORKER_ID}")["heartbeats"]["received"] > received + 6)
    assert psutil.Process(worker.process.pid).num_fds() <= files + 4
    assert worker.master.json(f"/api/workers/{WORKER_ID}")["heartbeats"]["missed"] == 0


def test_text_file_that_contradicts_a_command_is_reported_and_left_out(worker: CustomWorker) -> None:
    worker.write("second.prom", 'good{a="b"} 6\nother 7\n')
    eventually(lambda: worker.errors().get("textfile") is not None)
    assert worker.errors()["textfile"] == "good{a='b'} comes twice"
    assert (worker.reported("good"), worker.reported("other")) == ([5.0], [7.0])
    (worker.folder / "second.prom").unlink()
    eventually(lambda: worker.errors().get("textfile", "") is None)


def test_link_to_a_secret_is_not_published(worker: CustomWorker, tmp_path: Path) -> None:
    """Another user, who may write the folder, has the worker read what only the worker may read."""
    secret = tmp_path / "shadow"
    secret.write_text("root:hunter2:0:0\n")
    secret.chmod(0o600)
    link = worker.folder / "link.prom"
    link.symlink_to(secret)
    if os.geteuid() == 0:
        os.lchown(link, 65534, 65534)
    eventually(lambda: worker.errors().get("textfile:link.prom"))
    assert worker.errors()["textfile:link.prom"] == "is a link"
    assert "hunter2" not in worker.master.get("/telemetry").text
    link.unlink()
    worker.write("link.prom", "root:hunter2:0:0\n")
    eventually(lambda: worker.errors()["textfile:link.prom"] == "line 1 is not Prometheus' text format")
    link.unlink()


def test_worker_ends_with_its_running_commands(worker: CustomWorker) -> None:
    eventually(lambda: any(child.name() == "sleep" for child in worker.process.children()))
    worker.process.send(signal.SIGTERM)
    assert worker.process.wait() == 0
    eventually(lambda: not worker.process.left())
    eventually(lambda: not re.search(r"fleetpulse_custom_\w+{[^}]*worker_id=", worker.master.get("/metrics").text))
