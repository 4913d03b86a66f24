"""The number of modules that one heartbeat, or one task, enters in both programs."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from fleetpulse.worker import collectors
from tests.docker_engine import Engine
from tests.e2e import module_tracer
from tests.e2e.jobs import Jobs
from tests.e2e.masters import READY_SECONDS, MasterClient
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST, free_port

pytestmark = pytest.mark.e2e

MAX_MODULES_OF_A_HEARTBEAT = 35
MAX_MODULES_OF_A_TASK = 55

# Work that happens at the same time but does not belong to the traced path.
OTHER_COLLECTORS = tuple(
    f"worker.collectors.{path.stem}"
    for path in Path(collectors.__file__).parent.glob("*.py")
    if path.stem not in {"__init__", "cpu"}
)
GPUS = ("worker.capacity",)
GARBAGE = ("master.garbage",)
WORKER_TASKS = ("worker.tasks", "worker.docker_engine")
HISTORY_WRITER = ("master.store",)
TELEMETRY = (
    "master.history", "master.instruments", "master.metrics", "master.telemetry", "proto.cleaning", "proto.fields",
    "worker.capacity", "worker.collectors", "worker.sampler",
)  # fmt: skip


class TracedFleet:
    """A master and a worker that note which modules they enter."""

    def __init__(self, processes: Processes, **env: str) -> None:
        self._processes = processes
        http_port, grpc_port = free_port(), free_port()
        self.rest = MasterClient(http_port)
        ports = ("--http-port", str(http_port), "--grpc-port", str(grpc_port))
        master = processes.start("master", *self._traced("master"), *ports, "--heartbeat-interval", "1s")
        eventually(self.rest.is_healthy, READY_SECONDS)
        (web,) = eventually(master.children)
        flags = ("--master", f"{LOCALHOST}:{grpc_port}", "--worker-id", "traced")
        self._pids = {
            "master": web.pid,
            "worker": processes.start("worker", *self._traced("worker"), *flags, **env).pid,
        }

    def worker(self) -> Any:
        response = self.rest.get("/api/workers/traced")
        return response.json() if response.status_code == 200 else None

    def begin(self) -> None:
        for pid in self._pids.values():
            os.kill(pid, module_tracer.BEGIN)

    def entered(self, *ignored: str) -> list[str]:
        """The modules entered since ``begin``, except those with one of the prefixes ``ignored``."""
        found = []
        for program, pid in self._pids.items():
            os.kill(pid, module_tracer.END)
            eventually(self._file(program).exists)
            found += self._file(program).read_text().split()
        names = {name.removeprefix("fleetpulse.") for name in found}
        return sorted(name for name in names if not name.startswith(ignored))

    def _traced(self, program: str) -> tuple[str, ...]:
        return sys.executable, module_tracer.__file__, f"fleetpulse.{program}", str(self._file(program))

    def _file(self, program: str) -> Path:
        return self._processes.folder / f"{program}.modules"


def test_heartbeat_from_the_cpu_collector_to_metrics_enters_few_modules(processes: Processes) -> None:
    fleet = TracedFleet(processes, DOCKER_HOST=f"unix://{processes.folder}/nobody.sock")
    eventually(lambda: fleet.rest.sample("fleetpulse_heartbeats_received_total") > 2)
    before = fleet.rest.sample("fleetpulse_heartbeats_received_total")
    fleet.begin()
    eventually(lambda: fleet.rest.sample("fleetpulse_heartbeats_received_total") > before + 1)
    entered = fleet.entered(*OTHER_COLLECTORS, *GPUS, *WORKER_TASKS, *HISTORY_WRITER, *GARBAGE)
    assert {"worker.collectors.cpu", "master.metrics.exposition"} <= set(entered)
    assert len(entered) <= MAX_MODULES_OF_A_HEARTBEAT, "\n".join(entered)


def test_task_from_post_to_the_end_of_its_container_enters_few_modules(
    processes: Processes, docker_engine: Engine
) -> None:
    fleet = TracedFleet(processes, **docker_engine.env)
    jobs = Jobs(fleet.rest, docker_engine.image)
    eventually(lambda: fleet.worker() and fleet.worker()["tasks"]["accepted"])
    fleet.begin()
    task_id = jobs.submit("sleep", "1")
    # Not by REST, which would enter modules that are not on the way.
    eventually(lambda: docker_engine.containers("traced"))
    eventually(lambda: not docker_engine.containers("traced"))
    entered = fleet.entered(*TELEMETRY)
    assert jobs.status(task_id) == "completed"
    assert {"worker.docker_engine.engine", "master.tasks.transitions"} <= set(entered)
    assert len(entered) <= MAX_MODULES_OF_A_TASK, "\n".join(entered)
