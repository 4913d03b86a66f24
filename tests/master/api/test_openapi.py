"""master.api.openapi: the document is sound, and real answers are as it says"""

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from falcon.testing import Result

from fleetpulse.master.api.operations import JSON
from fleetpulse.master.api.tasks import parse_request
from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.master.api.openapi_document import described, errors_of, references_in
from tests.master.api.test_task_lifecycle import WholeMaster
from tests.master.fleet import full_heartbeat, heartbeat, settle, wait_until
from tests.master.tasks.cluster import Cluster, new_cluster

TASKS = "/api/tasks"
TASK = "/api/tasks/{task_id}"
LOGS = "/api/tasks/{task_id}/logs"
WORKER = "/api/workers/{worker_id}"


# The document


def test_every_reference_resolves() -> None:
    components = described()["components"]
    for reference in references_in(described()):
        kind, name = reference.removeprefix("#/components/").split("/")
        assert name in components[kind], reference


def test_every_schema_is_referenced() -> None:
    told = references_in(described())
    for name in described()["components"]["schemas"]:
        assert f"#/components/schemas/{name}" in told


def test_schemas_are_valid_json_schema() -> None:
    for schema in described()["components"]["schemas"].values():
        jsonschema_rs.meta.validate({**schema, "$schema": "https://json-schema.org/draft/2020-12/schema"})


def test_operations_and_parameters_have_descriptions() -> None:
    for path, item in described()["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                assert operation["summary"], path
                for parameter in [*item.get("parameters", ()), *operation.get("parameters", ())]:
                    assert parameter.get("description"), (path, parameter["name"])


def test_example_body_is_accepted() -> None:
    content = described()["paths"][TASKS]["post"]["requestBody"]["content"][JSON]
    spec, _ = parse_request(content["example"], None)
    assert list(spec.command) == content["example"]["command"]


# Real answers


class CheckedApi(WholeMaster):
    """Asks, and holds every answer to the document."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self.worker = cluster.worker(gpus=["GPU-aaaa", "GPU-bbbb"])

    def ask(self, method: str, template: str, status: int, query: str = "", **kwargs: Any) -> Result:
        path = template.format(worker_id=kwargs.pop("worker_id", "rack-7"), task_id=kwargs.pop("task_id", ""))
        result = self.client.simulate_request(method, path, query_string=query, **kwargs)
        assert result.status_code == status, result.text
        assert errors_of(result, method, template) == [], result.text
        return result


@pytest.fixture
def asked() -> Iterator[CheckedApi]:
    """A master with a worker that gives every reading, one that gives none, and one that is gone."""
    with new_cluster() as cluster:
        asked = CheckedApi(cluster)
        cluster.fleet.beat("gone")
        cluster.fleet.pass_time(60.0)
        for beat in (full_heartbeat("rack-7"), heartbeat("bare")):
            cluster.fleet.manager.process_heartbeat(beat)
        settle()
        yield asked


def test_answers_about_workers_match_the_document(asked: CheckedApi) -> None:
    for template in ("/telemetry", "/workers", "/api/workers"):
        assert len(asked.ask("GET", template, 200).json) == 3
    for template in ("/telemetry/{worker_id}", WORKER, f"{WORKER}/metrics"):
        for worker_id in ("rack-7", "bare"):
            asked.ask("GET", template, 200, worker_id=worker_id)
        result = asked.ask("GET", template, 200, worker_id="gone")
        asked.ask("GET", template, 304, worker_id="gone", headers={"If-None-Match": result.headers["ETag"]})
        asked.ask("GET", template, 404, worker_id="nobody")
    asked.ask("DELETE", WORKER, 409)
    asked.ask("DELETE", WORKER, 204, worker_id="gone")
    for what in ("drain", "undrain"):
        asked.ask("POST", f"{WORKER}/{what}", 200)
        asked.ask("POST", f"{WORKER}/{what}", 422, json={"raeson": 1})
        asked.ask("POST", f"{WORKER}/{what}", 415, body="reason", headers={"Content-Type": "text/plain"})
        asked.ask("POST", f"{WORKER}/{what}", 400, body="{", headers={"Content-Type": JSON})
    asked.ask("GET", "/sd/targets", 200, "port=9100")
    asked.ask("GET", "/sd/targets", 422)
    for template in ("/health", "/metrics", "/openapi.json", "/docs"):
        asked.ask("GET", template, 200)


def test_answers_about_tasks_match_the_document_at_every_stage(asked: CheckedApi) -> None:
    worker = asked.worker
    body = {
        "docker_image": "busybox", "name": "n", "command": "sh -c 'exit 3'", "env": {"A": "b"}, "gpu_required": 1,
        "labels": {"a": "b"}, "constraints": {"worker_id": "rack-7"}, "timeout_seconds": 60, "max_retries": 1,
    }  # fmt: skip
    task_id = asked.ask("POST", TASKS, 201, json=body, headers={"Idempotency-Key": "k"}).json["task_id"]
    asked.ask("POST", TASKS, 200, json=body, headers={"Idempotency-Key": "k"})
    asked.ask("POST", TASKS, 409, json={**body, "name": "m"}, headers={"Idempotency-Key": "k"})
    asked.ask("POST", TASKS, 422, json={**body, "env": {"A": 1}, "nmae": [], "priority": 101})
    waiting = asked.ask("POST", TASKS, 201, json={"docker_image": "busybox", "cpu_required": 1000}).json["task_id"]
    look(asked, waiting)
    wait_until(lambda: (task_id, 1) in worker.starts())
    look(asked, task_id)
    worker.run(task_id)
    look(asked, task_id)
    worker.log(task_id, 0, b"hi\n")
    worker.wait_for_ack(worker.report(task_id, pb.ATTEMPT_PHASE_FAILED, exit_code=3, reason="exit_code"))
    look(asked, task_id)
    asked.ask("DELETE", TASK, 202, task_id=waiting)
    asked.ask("DELETE", TASK, 409, task_id=waiting)
    asked.ask("DELETE", TASK, 404, task_id="task-none")
    look(asked, waiting)
    asked.ask("GET", TASKS, 200, "limit=1")
    asked.ask("GET", TASKS, 422, "limit=0&statsu=queued")


def look(asked: CheckedApi, task_id: str) -> None:
    """See a task by every path that shows it."""
    asked.ask("GET", TASK, 200, task_id=task_id)
    assert len(asked.ask("GET", TASKS, 200).json) == 2
    asked.ask("GET", LOGS, 200, task_id=task_id)
    asked.ask("GET", LOGS, 200, "format=text", task_id=task_id)
    asked.ask("GET", f"{WORKER}/tasks", 200)


def test_undocumented_answer_is_detected(asked: CheckedApi) -> None:
    result = asked.ask("GET", "/telemetry/{worker_id}", 200)
    record = result.json
    assert errors_of(result, "GET", "/workers") != []
    del record["is_active"]
    assert len(errors_of(Result([str(record).encode()], "200 OK", [("Content-Type", "text/html")]), "GET", TASKS)) == 1
