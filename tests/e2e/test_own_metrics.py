"""An operator's own metrics, from a real worker to /metrics and REST."""

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.masters import Master
from tests.e2e.processes import Processes, Started
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

WORKER_ID = "rack-7"


class OwnWorker:
    """A real worker with a folder of files and two commands."""

    def __init__(self, processes: Processes, master: Master, folder: Path) -> None:
        self.folder, self._master = folder, master
        self.process: Started = processes.worker(
            master.target, "--worker-id", WORKER_ID, "--no-tasks", "--textfile-dir", str(folder),
            "--metrics-command", "good=printf 'good{a=\"b\"} 5\\n'",
            "--metrics-command", "hangs=sleep 1000", "--metrics-interval", "1",
        )  # fmt: skip

    def write(self, name: str, text: str) -> None:
        new = self.folder / f".{name}.new"
        new.write_text(text)
        new.rename(self.folder / name)

    def shown(self, name: str) -> dict[tuple[str, ...], float]:
        return self._master.samples(f"fleetpulse_custom_{name}")

    def record(self, name: str) -> list[float]:
        custom = self._master.json(f"/telemetry/{WORKER_ID}")["custom"]
        return [sample["value"] for sample in custom if sample["name"] == name]

    def errors(self) -> dict[str, str | None]:
        return {
            report["collector"]: report["error"]
            for report in self._master.json(f"/telemetry/{WORKER_ID}")["collectors"]
        }


@pytest.fixture(scope="module")
def own(
    shared_processes: Processes, shared_master: Master, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OwnWorker]:
    own = OwnWorker(shared_processes, shared_master, tmp_path_factory.mktemp("textfile"))
    eventually(lambda: WORKER_ID in shared_master.workers())
    yield own
    children = own.process.children()
    own.process.kill_all()
    assert [child for child in children if child.is_running()] == []
    assert "Traceback" not in own.process.err


def test_a_file_appears_changes_breaks_and_recovers(own: OwnWorker) -> None:
    own.write("raid.prom", '# TYPE raid_degraded gauge\nraid_degraded{array="md0"} 0\n')
    eventually(lambda: own.shown("raid_degraded") == {("md0", WORKER_ID): 0.0})
    assert own.record("raid_degraded") == [0.0]
    own.write("raid.prom", '# TYPE raid_degraded gauge\nraid_degraded{array="md0"} 1\n')
    eventually(lambda: own.shown("raid_degraded") == {("md0", WORKER_ID): 1.0})
    own.write("raid.prom", 'raid_degraded{array="md0" 1\n')
    eventually(lambda: own.shown("raid_degraded") == {} and own.record("raid_degraded") == [])
    assert "line 1 is not Prometheus' text format" in str(own.errors()["textfile:raid.prom"])
    # It harms nothing else.
    assert own.errors()["cpu"] is None
    assert own.shown("good") == {("b", WORKER_ID): 5.0}
    assert own._master.samples("fleetpulse_worker_collector_success")["textfile:raid.prom", WORKER_ID] == 0.0
    own.write("raid.prom", 'raid_degraded{array="md1"} 2\n')
    eventually(lambda: own.shown("raid_degraded") == {("md1", WORKER_ID): 2.0})
    assert own.errors()["textfile:raid.prom"] is None
    assert own.shown("textfile_mtime_seconds").keys() == {("raid.prom", WORKER_ID)}


def test_a_command_that_hangs_is_killed_and_reported_and_the_others_go_on(own: OwnWorker) -> None:
    eventually(lambda: "did not end within 1 s" in str(own.errors()["command:hangs"]))
    assert own.record("good") == [5.0]
    # One run at a time, and no file of the worker is left open for each.
    assert len(own.process.children()) <= 2
    files = psutil.Process(own.process.pid).num_fds()
    received = own._master.json(f"/api/workers/{WORKER_ID}")["heartbeats"]["received"]
    eventually(lambda: own._master.json(f"/api/workers/{WORKER_ID}")["heartbeats"]["received"] > received + 6)
    assert psutil.Process(own.process.pid).num_fds() <= files + 4
    assert own._master.json(f"/api/workers/{WORKER_ID}")["heartbeats"]["missed"] == 0


def test_what_contradicts_itself_across_sources_is_kept_from_the_wire(own: OwnWorker) -> None:
    own.write("second.prom", 'good{a="b"} 6\nother 7\n')
    eventually(lambda: own.errors().get("textfile") is not None)
    assert own.errors()["textfile"] == "good{a='b'} comes twice"
    assert (own.record("good"), own.record("other")) == ([5.0], [7.0])
    (own.folder / "second.prom").unlink()
    eventually(lambda: own.errors().get("textfile", "") is None)


def test_it_ends_with_its_commands_while_one_runs(own: OwnWorker) -> None:
    eventually(lambda: any(child.name() == "sleep" for child in own.process.children()))
    own.process.send(signal.SIGTERM)
    assert own.process.wait() == 0
    eventually(lambda: not own.process.left())
    eventually(lambda: "fleetpulse_custom_" not in own._master.get("/metrics").text)
