"""The paths of tasks over the real task service and a real store, with a worker"""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from falcon.testing import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetpulse.master.api.subscribers import Subscribers
from fleetpulse.master.api.views import FleetViews
from fleetpulse.master.api.workers import HealthResource
from fleetpulse.master.app import HttpServices, create_wsgi
from fleetpulse.master.metrics.exposition import FleetExposition
from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.master.api.test_task_stream import Reader
from tests.master.api.web_server import Client, served
from tests.master.audit.trails import unwritten_trail
from tests.master.fleet import GIB, wait_until
from tests.master.guards import open_access
from tests.master.history.memory_store import history_of
from tests.master.tasks.cluster import Cluster, FakeWorker, new_cluster

EXITED = pb.ATTEMPT_PHASE_FAILED


class WholeMaster:
    """A master's tasks and REST."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        views, exposition = FleetViews(), FleetExposition()
        cluster.fleet.manager.add_observer(views)
        health = HealthResource({}, "1.2.3")
        fleet = cluster.fleet
        self.app = create_wsgi(
            HttpServices(
                fleet.manager, cluster.tasks, history_of(fleet), unwritten_trail(fleet.instruments), open_access(),
                views, exposition, fleet.instruments, health, Subscribers(),
            )
        )  # fmt: skip
        self.client = TestClient(self.app)

    def get(self, path: str) -> Any:
        result = self.client.simulate_get(path)
        assert result.status_code == 200, result.text
        return result.json

    def submit(self, **fields: Any) -> str:
        result = self.client.simulate_post("/api/tasks", json={"docker_image": "busybox", **fields})
        assert result.status_code == 201, result.text
        task_id: str = result.json["task_id"]
        return task_id

    def running(self, worker: FakeWorker, **fields: Any) -> str:
        """A new task that runs on the worker."""
        task_id = self.submit(**fields)
        wait_until(lambda: (task_id, 1) in worker.starts())
        worker.run(task_id)
        return task_id


@pytest.fixture
def whole() -> Iterator[WholeMaster]:
    with new_cluster() as cluster:
        yield WholeMaster(cluster)


def test_stream_of_a_task_submitted_before_any_worker(whole: WholeMaster) -> None:
    with served(whole.app) as server, Client(server.address) as client:
        body = json.dumps({"docker_image": "busybox", "command": "sh -c 'echo hi; exit 3'"}).encode()
        client.request(
            "POST", "/api/tasks", "Content-Type: application/json", f"Content-Length: {len(body)}", body=body
        )
        status, task = client.answer()
        task_id = task["task_id"]
        assert (status, task["status"]) == (201, "queued")
        assert "no worker" in task["queue_reason"]
        with Reader(server.address, f"/api/tasks/{task_id}/logs?follow=true") as reader:
            assert reader.take(1)[0].data["status"] == "queued"
            worker = whole.cluster.worker()
            wait_until(lambda: (task_id, 1) in worker.starts())
            worker.run(task_id)
            worker.log(task_id, 0, b"hi\n")
            assert reader.log(3) == "hi\n"
            worker.log(task_id, 3, b"bye\n")
            worker.wait_for_ack(worker.report(task_id, EXITED, exit_code=3, oom_killed=False, reason="exit_code"))
            events = list(reader)
        assert "".join(event.data["logs"] for event in events if event.kind == "message") == "bye\n"
        assert events[-1].kind == "end"
        assert events[-1].data.items() >= {"status": "failed", "exit_code": 3, "oom_killed": False}.items()
        assert whole.get(f"/api/tasks/{task_id}/logs").items() >= {"logs": "hi\nbye\n", "complete": True}.items()
        details = whole.get(f"/api/tasks/{task_id}")
        assert details["command"] == ["sh", "-c", "echo hi; exit 3"]
        assert details.items() >= {"status": "failed", "exit_code": 3, "reason": "exit_code"}.items()
        assert details["attempts"][0].items() >= {"worker_id": "rack-7", "container_id": f"{task_id}-1"}.items()
        assert [event["kind"] for event in details["events"]] == ["submitted", "assigned", "running", "failed"]


def test_cancel_a_queued_and_a_running_task(whole: WholeMaster) -> None:
    worker = whole.cluster.worker()
    task_id = whole.running(worker)
    path = f"/api/tasks/{task_id}"
    assert whole.client.simulate_delete(path).status_code == 202
    wait_until(lambda: (task_id, 1, False) in worker.stops())
    assert whole.client.simulate_delete(path).status_code == 202
    worker.wait_for_ack(worker.report(task_id, pb.ATTEMPT_PHASE_STOPPED, exit_code=143, reason="stopped"))
    assert whole.get(path).items() >= {"status": "cancelled", "exit_code": 143, "reason": "cancelled"}.items()
    assert whole.client.simulate_delete(path).status_code == 409


def test_worker_shows_allocated_and_available_resources(whole: WholeMaster) -> None:
    worker = whole.cluster.worker(cores=4.0, gpus=["GPU-a", "GPU-b"])
    task_id = whole.running(worker, cpu_required=1.5, memory_required=1024, gpu_required=1)
    details = whole.get("/api/workers/rack-7")
    assert details["capacity"]["gpu_uuids"] == ["GPU-a", "GPU-b"]
    assert details["allocated"].items() >= {"cpu_cores": 1.5, "memory_bytes": GIB, "gpu_count": 1}.items()
    assert details["available"].items() >= {"cpu_cores": 2.5, "memory_bytes": 7 * GIB, "gpu_count": 1}.items()
    assert details["tasks"].items() >= {"count": 1, "accepted": True, "draining": False}.items()
    (assignment,) = whole.get("/api/workers/rack-7/tasks")
    assert assignment.items() >= {"task_id": task_id, "status": "running", "gpu_uuids": ["GPU-a"]}.items()
    assert whole.client.simulate_get("/api/workers/stranger/tasks").status_code == 404


def test_drained_worker_gets_no_tasks(whole: WholeMaster) -> None:
    worker = whole.cluster.worker()
    path = "/api/workers/rack-7"
    drained = whole.client.simulate_post(f"{path}/drain", json={"reason": "new disk"})
    assert drained.status_code == 200
    assert (
        whole.get(path)["tasks"].items()
        >= {
            "accepted": False,
            "draining": True,
            "drain_reason": "new disk",
        }.items()
    )
    task_id = whole.submit()
    assert "drained" in whole.get(f"/api/tasks/{task_id}")["queue_reason"]
    assert whole.client.simulate_post(f"{path}/undrain").status_code == 200
    wait_until(lambda: (task_id, 1) in worker.starts())
    assert whole.client.simulate_post("/api/workers/stranger/drain").status_code == 404


def test_task_too_large_for_every_worker_is_accepted_with_a_queue_reason(whole: WholeMaster) -> None:
    whole.cluster.worker(cores=4.0)
    task_id = whole.submit(cpu_required=64)
    reason = whole.get(f"/api/tasks/{task_id}")["queue_reason"]
    assert "64" in reason
    assert whole.get("/api/tasks?status=queued")[0]["queue_reason"] == reason


def test_tasks_are_listed_in_pages(whole: WholeMaster) -> None:
    submitted = [whole.submit(name=f"n-{number}") for number in range(5)]
    found: list[str] = []
    path = "/api/tasks?limit=2&name=n-"
    while path:
        result = whole.client.simulate_get(path)
        found += [task["task_id"] for task in result.json]
        path = result.headers.get("Link", "").partition(">")[0].removeprefix("<")
    assert found == submitted[::-1]
    assert whole.client.simulate_get("/api/tasks?cursor=made-up").status_code == 422


def test_idempotency_key(whole: WholeMaster) -> None:
    def post(**fields: Any) -> Any:
        body = {"docker_image": "busybox", **fields}
        return whole.client.simulate_post("/api/tasks", json=body, headers={"Idempotency-Key": "k"})

    first, again, other = post(), post(priority=0), post(priority=1)
    assert [first.status_code, again.status_code, other.status_code] == [201, 200, 409]
    assert first.json["task_id"] == again.json["task_id"]


# Whatever comes


TEXTS = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=20)
NAMES = st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]{0,20}\Z")
SUBMISSIONS = st.fixed_dictionaries(
    {"docker_image": st.sampled_from(["busybox", "registry.example.com:5000/a/b:1"])},
    optional={
        "name": TEXTS,
        "command": st.lists(TEXTS.filter(bool), max_size=4),
        "env": st.dictionaries(NAMES, TEXTS, max_size=3),
        "cpu_required": st.floats(0.01, 1024),
        "memory_required": st.integers(6, 16 * 1024 * 1024),
        "gpu_required": st.integers(0, 64),
        "priority": st.integers(0, 100),
        "max_retries": st.integers(0, 100),
        "timeout_seconds": st.none() | st.floats(0.001, 2_592_000),
        "labels": st.dictionaries(NAMES, TEXTS, max_size=3),
        "constraints": st.dictionaries(NAMES, st.lists(TEXTS, min_size=1, max_size=3), max_size=3),
    },
)
QUERIES = st.dictionaries(
    st.sampled_from(["status", "worker_id", "name", "limit", "cursor"]),
    st.text(max_size=10) | st.sampled_from(["queued,failed", "1", "rack-7", "%", "_", "\\", "'", "\x00", "\ud800"]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(SUBMISSIONS)
def test_task_shows_what_was_submitted(whole: WholeMaster, body: dict[str, Any]) -> None:
    shown = whole.get(f"/api/tasks/{whole.submit(**body)}")
    expected = {**body, "env": dict.fromkeys(body.get("env", {}))}
    assert {name: shown[name] for name in expected} == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(QUERIES)
def test_large_queries_reach_the_store(whole: WholeMaster, query: dict[str, str]) -> None:
    encoded = urlencode(query, errors="surrogatepass")
    assert whole.client.simulate_get("/api/tasks", query_string=encoded).status_code in {200, 422}
