"""A worker whose Docker Engine has no room left, beside one that is well."""

import pytest

from tests.docker_engine import Engine, isolated_engine
from tests.e2e.jobs import DockerFleet
from tests.e2e.masters import Master
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

TASKS = 40


def test_worker_with_a_full_disk_does_not_eat_the_queue(
    processes: Processes, master: Master, docker_engine: Engine
) -> None:
    with isolated_engine(disk_mib=64) as full:
        broken, well = DockerFleet(processes, master, full), DockerFleet(processes, master, docker_engine)
        broken.worker("full")
        well.worker("well")
        full.fill_disk()
        tasks = [well.jobs.submit("true", cpu_required=0.5, memory_required=16) for _ in range(TASKS)]
        ended = [well.jobs.ended(task_id) for task_id in tasks]
        assert [task["status"] for task in ended] == ["completed"] * TASKS
        assert {task["worker_id"] for task in ended} == {"well"}
        assert {task["retries_used"] for task in ended} == {0}
        failed = [attempt["reason"] for task in ended for attempt in task["attempts"] if attempt["worker_id"] == "full"]
        assert failed
        assert set(failed) == {"disk_full"}
        assert master.sample("fleetpulse_worker_degraded", "full") == 1.0
        assert master.sample("fleetpulse_worker_degraded", "well") == 0.0
        reason = master.json("/api/workers/full")["tasks"]["degraded_reason"]
        assert reason.startswith("disk_full: the disk that Docker keeps its data on is full")

        full.empty_disk()
        only = well.jobs.submit("true", constraints={"worker_id": "full"}, cpu_required=0.5, memory_required=16)
        assert "degraded" in well.jobs.get(only)["queue_reason"]
        assert well.jobs.ended(only)["status"] == "completed"
        eventually(lambda: master.sample("fleetpulse_worker_degraded", "full") == 0.0)
        broken.close()
        well.close()
