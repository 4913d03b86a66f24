"""The shipped configuration in a real Prometheus and Alertmanager with a real master."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.e2e.grpc_client import GrpcClient, a_heartbeat
from tests.e2e.masters import FAST_LEASE_FLAGS, started_master
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually
from tests.monitoring.stack import ShippedAlertmanager, ShippedPrometheus, webhook
from tests.ports import free_port
from tests.tools import require_tool

pytestmark = pytest.mark.e2e


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Processes that end with the test."""
    processes = Processes(tmp_path)
    yield processes
    processes.close()


def register(client: GrpcClient, worker_id: str, **labels: str) -> None:
    """Registers a worker on this machine, which sends one heartbeat."""
    stream = client.stream()
    message = pb.Register(worker_id=worker_id, incarnation_id="one", hostname="localhost", labels=labels)
    stream.send(pb.WorkerMessage(register=message))
    stream.send(pb.WorkerMessage(heartbeat=a_heartbeat(worker_id, sequence_number=1)))


def test_machine_is_scraped_by_service_discovery(processes: Processes) -> None:
    """node_exporter is a target through `--label node_exporter=true`, until its worker is inactive."""
    exporter_port = free_port()
    processes.start(
        "node_exporter", str(require_tool("prometheus-node-exporter")), "--collector.disable-defaults",
        "--collector.loadavg", f"--web.listen-address=localhost:{exporter_port}",
    )  # fmt: skip
    master = started_master(processes, "--inactivity-timeout", "20s")
    ports = {"localhost:8080": master.http_port, "localhost:9093": free_port(), "port=9100": exporter_port}
    with GrpcClient(master.target) as client:
        register(client, "plain")
        register(client, "rack-7", node_exporter="true", rack="b4")
        eventually(lambda: master.active() == 2)
        prometheus = ShippedPrometheus(processes, ports)
        labels = ("localhost", f"localhost:{exporter_port}", "node", "b4", "rack-7")
        eventually(lambda: prometheus.query("up{job='node'}") == {labels: 1.0}, 20.0)
        eventually(lambda: list(prometheus.query("node_load1")) == [labels])
        joined = "node_load1 * on (worker_id) group_left fleetpulse_worker_up"
        # The master is scraped at another time, up to a second later.
        eventually(lambda: list(prometheus.query(joined)) == [labels])

    eventually(lambda: prometheus.query("up{job='node'}") == {}, 40.0)
    prometheus.close()
    master.close()


@pytest.mark.timeout(180)
def test_team_is_notified_of_an_inactive_worker_and_of_its_return(processes: Processes) -> None:
    with webhook() as receiver:
        alertmanager = ShippedAlertmanager(processes, receiver.port)
        master = started_master(processes, *FAST_LEASE_FLAGS)
        processes.simulate(master.target, 20, "--gpu-share", "0.5")
        lost = processes.simulate(master.target, 1, "--prefix", "lost", "--no-goodbye")
        eventually(lambda: master.active() == 21, 20.0)
        prometheus = ShippedPrometheus(
            processes, {"localhost:8080": master.http_port, "localhost:9093": alertmanager.port}
        )
        rules = eventually(
            lambda: (all_of := prometheus.rules()) and all(r["evaluationTime"] for r in all_of) and all_of
        )
        eventually(lambda: prometheus.value("count(fleetpulse:worker_memory_used:ratio)") == 21.0, 20.0)
        assert receiver.received == []

        lost.kill_all()
        firing = eventually(lambda: receiver.find("/team", "firing", "FleetPulseWorkerInactive"), 30.0)
        (worker_id,) = (worker_id for worker_id, is_active in master.workers().items() if not is_active)
        assert firing is not None
        assert firing["worker_id"] == worker_id
        assert firing["summary"] == f"Worker {worker_id} is inactive"
        assert firing["command"].startswith(f"curl -s http://localhost:{master.http_port}/api/workers/{worker_id} |")

        processes.simulate(master.target, 1, "--prefix", "lost")
        eventually(lambda: receiver.find("/team", "resolved", "FleetPulseWorkerInactive"), 30.0)
        rules = prometheus.rules()
        assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"] == []
        assert {labels["alertname"] for _, _, labels in receiver.received} == {"FleetPulseWorkerInactive"}
        prometheus.close()
        alertmanager.close()
        master.close()


MASTER = {"job": "fleetpulse", "instance": "master:8080"}


def alert(name: str, concern: str = "workers", **labels: str) -> dict[str, str]:
    return {"alertname": name, "concern": concern, "severity": "warning", **MASTER, **labels}


@pytest.mark.parametrize(
    ("source", "inhibited", "others"),
    [
        (
            alert("FleetPulseMasterDown", "master"),
            [alert("FleetPulseWorkerInactive", worker_id="a"), alert("FleetPulseTaskQueueTooOld", "tasks")],
            [alert("FleetPulseWorkerFlapping", instance="other:8080"), alert("FleetPulseScrapeSlow", "master")],
        ),
        (
            alert("FleetPulseFleetPartlyGone"),
            [alert("FleetPulseWorkerInactive", worker_id="a"), alert("FleetPulseWorkerDownWithTasks", worker_id="a")],
            [alert("FleetPulseFilesystemFull", "capacity", worker_id="a"), alert("FleetPulseReschedulingHeld")],
        ),
        (
            alert("FleetPulseFilesystemFull", "capacity", worker_id="a", mountpoint="/"),
            [alert("FleetPulseFilesystemNearlyFull", "capacity", worker_id="a", mountpoint="/")],
            [alert("FleetPulseFilesystemFillsIn4Hours", "capacity", worker_id="a", mountpoint="/data")],
        ),
        (
            alert("FleetPulseWorkerDownWithTasks", worker_id="a"),
            [alert("FleetPulseWorkerInactive", worker_id="a")],
            [alert("FleetPulseWorkerFlapping", worker_id="a")],
        ),
    ],
    ids=["master", "fleet", "filesystem", "tasks"],
)
def test_alert_inhibits_less_important_alerts(
    processes: Processes, source: dict[str, str], inhibited: list[dict[str, str]], others: list[dict[str, str]]
) -> None:
    alertmanager = ShippedAlertmanager(processes, free_port())
    alertmanager.post(source, *inhibited, *others)
    expected = {labels["alertname"]: labels in inhibited for labels in (source, *inhibited, *others)}
    eventually(lambda: alertmanager.inhibited() == expected)
    alertmanager.close()
