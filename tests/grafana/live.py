"""A master with a simulated fleet with failures, and a Prometheus that scrapes it."""

import time
from typing import Any, NamedTuple

import requests

from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.e2e.grpc_client import GrpcClient, a_heartbeat
from tests.e2e.jobs import Jobs
from tests.e2e.masters import FAST_LEASE_FLAGS, Master, started_master
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST, free_port
from tests.tools import ROOT, require_tool

WORKERS = 24
DRAINED = "sim-24"
VANISHING = ("sim-01", "sim-02")
IN_DEPTH = "sim-06"
"""Has GPUs, one of them allocated to a running task."""

BY_HAND = "by-hand"
"""A worker with readings that simulated machines lack."""

RECORDING = ROOT / "monitoring" / "rules" / "recording.yml"

_CONFIG = """
global:
  scrape_interval: 1s
  scrape_timeout: 1s
  evaluation_interval: 1s
rule_files: [rules.yml, {recording}]
scrape_configs:
  - job_name: whatever-it-is-called
    static_configs:
      - targets: ["{target}"]
  - job_name: prometheus
    static_configs:
      - targets: ["{itself}"]
"""

# Alerts with the names of real ones that fire at once.
_ALERT = """
      - alert: {name}
        expr: {expr}
        labels: {{severity: warning}}
"""
_ALERTS = {
    "FleetPulseWorkerInactive": "max by (worker_id) (fleetpulse_worker_up) == 0",
    "FleetPulseGpuHot": "max by (worker_id) (fleetpulse_worker_gpu_temperature_celsius) > 0",
    "FleetPulseTaskAttemptsLost": "vector(1)",
    "FleetPulseStoreSlow": "vector(1)",
}


class Sample(NamedTuple):
    """One series of an answer, with NaN values."""

    labels: dict[str, str]
    values: list[float]


class Prometheus:
    """A real Prometheus process."""

    def __init__(self, processes: Processes, target: str) -> None:
        program = require_tool("prometheus")
        itself = f"{LOCALHOST}:{free_port()}"
        self.url = f"http://{itself}"
        folder = processes.folder
        rules = "".join(_ALERT.format(name=name, expr=expr) for name, expr in _ALERTS.items())
        (folder / "rules.yml").write_text(f"groups:\n  - name: shown\n    rules:{rules}")
        config = folder / "prometheus.yml"
        config.write_text(_CONFIG.format(target=target, itself=itself, recording=RECORDING))
        self._session = requests.Session()
        self._session.trust_env = False
        processes.start(
            "prometheus", str(program), f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address={itself}", "--log.level=warn",
        )  # fmt: skip
        eventually(lambda: self._session.get(f"{self.url}/-/ready", timeout=5).status_code == 200, 20.0)

    def get(self, path: str, **params: Any) -> Any:
        response = self._session.get(f"{self.url}/api/v1/{path}", params=params, timeout=20)
        assert response.status_code == 200, response.text
        return response.json()["data"]

    def at(self, moment: float, expr: str) -> list[Sample]:
        """An instant query."""
        return _samples(self.get("query", query=expr, time=moment))

    def over(self, begin: float, end: float, expr: str) -> list[Sample]:
        """A range query."""
        return _samples(self.get("query_range", query=expr, start=begin, end=end, step=1))

    def close(self) -> None:
        self._session.close()


def _samples(data: Any) -> list[Sample]:
    if data["resultType"] == "scalar":
        return [Sample({}, [float(data["result"][1])])]
    return [
        Sample(series["metric"], [float(value) for _, value in series.get("values") or [series["value"]]])
        for series in data["result"]
    ]


class Scene:
    """Data for every panel, between ``begin`` and ``end``."""

    def __init__(self, processes: Processes) -> None:
        self.master: Master = started_master(processes, *FAST_LEASE_FLAGS)
        self.prometheus = Prometheus(processes, f"{LOCALHOST}:{self.master.http_port}")
        self._jobs = Jobs(self.master, "busybox")
        self._client = GrpcClient(self.master.target)
        self.begin = time.time()
        processes.simulate(
            self.master.target, WORKERS, "--gpu-share", "0.75", "--vanish", str(len(VANISHING)),
            "--trouble-after", "15", "--trouble-for", "1",
        )  # fmt: skip
        eventually(lambda: self.master.active() == WORKERS)
        eventually(self._is_scraped, 20.0)
        self._cause_refusals()
        self._submit_tasks()
        eventually(self._has_everything, 60.0)
        self.end = time.time()
        self.exposition = self.master.get("/metrics").text

    def _is_scraped(self) -> bool:
        return len(self.prometheus.at(time.time(), "fleetpulse_worker_up")) == WORKERS

    def _cause_refusals(self) -> None:
        """Refusals are counted by reason only after the first."""
        self._send_heartbeat()
        for _ in range(3):
            self._client.send_heartbeat(a_heartbeat("not an id"))
        stream = self._client.stream()
        stream.send(pb.WorkerMessage(register=pb.Register(worker_id="not an id", incarnation_id="one")))
        stream.refusal()

    def _send_heartbeat(self) -> None:
        seconds = time.time() - self.begin
        self._client.send_heartbeat(
            a_heartbeat(
                BY_HAND,
                memory=pb.Memory(used_bytes=1, size_bytes=4, swap_used_bytes=1, swap_size_bytes=2),
                pressure=pb.Pressure(
                    cpu_waiting_seconds=seconds,
                    memory_waiting_seconds=seconds / 2,
                    memory_stalled_seconds=seconds / 4,
                    io_waiting_seconds=seconds / 8,
                    io_stalled_seconds=seconds / 16,
                ),
                sensors=[pb.Sensor(sensor="coretemp/Package id 0", temperature_celsius=50.0, fan_rpm=1200.0)],
            )
        )

    def _submit_tasks(self) -> None:
        """Tasks that run on, complete, fail, are lost with their worker, or fit nowhere."""
        self._jobs.post(f"/api/workers/{DRAINED}/drain", {})
        self._jobs.submit("sleep", "600", constraints={"worker_id": VANISHING[0]})
        self._jobs.submit("sleep", "600", constraints={"worker_id": IN_DEPTH}, gpu_required=1)
        self._jobs.submit("sleep", "600", constraints={"worker_id": "nobody"})
        for command in (["true"], ["sleep", "1"], ["false"]):
            for _ in range(4):
                self._jobs.submit(*command)

    def _has_everything(self) -> bool:
        """Whether Prometheus has seen the last event for long enough to have a rate. Keeps sending heartbeats."""
        self._send_heartbeat()
        now = time.time()
        seen = self.prometheus.at(now, 'fleetpulse_task_attempts_ended_total{status="lost"} offset 3s')
        return bool(seen) and now - self.begin > 15.0

    def close(self) -> None:
        self._client.__exit__(None, None, None)
        self.prometheus.close()
        self.master.close()
