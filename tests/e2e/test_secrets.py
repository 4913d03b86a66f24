"""A secret in the environment of a task appears only in the task's own container."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fleetpulse.master.api.routes import ROUTES
from tests.docker_engine import Engine
from tests.e2e.jobs import DockerFleet
from tests.e2e.masters import FAST_LEASE_FLAGS, started_master
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually
from tests.postgres import PostgresServer

pytestmark = pytest.mark.e2e

SECRET = "Hunter2-Zx81-never-shown"
FORMS = (
    SECRET,
    base64.b64encode(SECRET.encode()).decode().rstrip("=")[:-1],
    SECRET.encode().hex(),
)
"""The secret in plain text, Base64 and hex."""

ENV = {"PLANTED": SECRET, "OTHER": "harmless"}
STREAMS = {"/telemetry/stream"}


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, processes: Processes) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{processes.folder}/tasks.db"
    server = request.getfixturevalue("postgres")
    assert isinstance(server, PostgresServer)
    return server.create_schema()


@pytest.fixture
def fleet(processes: Processes, docker_engine: Engine, database_url: str) -> Iterator[DockerFleet]:
    master = started_master(processes, *FAST_LEASE_FLAGS, "--log-level", "debug", DATABASE_URL=database_url)
    fleet = DockerFleet(processes, master, docker_engine)
    fleet.worker("vault", "--log-level", "debug")
    yield fleet
    fleet.close()
    master.close()


def test_secret_is_only_in_its_container(fleet: DockerFleet, processes: Processes, database_url: str) -> None:
    running = fleet.jobs.submit("sh", "-c", "sleep 1000", env=ENV, name="running")
    failed = fleet.jobs.submit("no-such-program", env=ENV, name="failed")
    ended = fleet.jobs.submit("sh", "-c", 'test -n "$PLANTED"; exit $?', env=ENV, name="ended")
    waits = fleet.jobs.submit("true", env=ENV, name="waits", cpu_required=1000)
    other = fleet.jobs.submit("sleep", "1000", name="other")
    refused = [
        {"docker_image": "x", "env": {"PLANTED": SECRET, "BAD NAME": SECRET}},
        {"docker_image": "x", "env": {"PLANTED": [SECRET]}},
        {"docker_image": "x", "env": SECRET},
        {"docker_image": "x", "env": {"PLANTED": SECRET + "\x00"}},
    ]
    answers = [fleet.jobs.post("/api/tasks", body) for body in refused]
    body = {"docker_image": fleet.engine.image, "command": ["true"], "env": ENV, "cpu_required": 1000}
    answers += [fleet.jobs.post("/api/tasks", body, **{"Idempotency-Key": "k"}) for _ in range(2)]
    conflict = {**body, "env": {**ENV, "OTHER": "changed"}}
    answers.append(fleet.jobs.post("/api/tasks", conflict, **{"Idempotency-Key": "k"}))
    assert [answer.status_code for answer in answers] == [422, 422, 422, 422, 201, 200, 409]
    for task_id in (running, other):
        fleet.jobs.when(task_id, "running")
    assert fleet.jobs.ended(ended)["exit_code"] == 0
    fleet.jobs.ended(failed)

    (container,) = fleet.containers("vault", running)
    assert f"PLANTED={SECRET}" in container.attrs["Config"]["Env"]
    del container.attrs["Config"]["Env"]
    (another,) = fleet.containers("vault", other)
    assert_clean({"the container except its env": container.attrs, "another container": another.attrs})

    task_ids = (running, failed, ended, waits, other)
    assert_clean({f"answer {number}": f"{answer.headers} {answer.text}" for number, answer in enumerate(answers)})
    assert_clean(dict(every_get(fleet, task_ids)))
    assert fleet.jobs.get(running)["env"] == dict.fromkeys(ENV)
    assert_clean({"events": list(fleet.jobs.follow(ended))})
    assert_clean({"cancel": fleet.jobs.cancel(running).text})
    eventually(lambda: fleet.jobs.status(running) == "cancelled")

    logs = dict(processes.logs())
    assert len(logs) >= 2
    assert any("DEBUG" in text for name, text in logs.items() if name.startswith("vault"))
    files = [path for path in processes.folder.rglob("*") if path.is_file()]
    assert_clean({str(path): path.read_bytes().decode("latin-1") for path in files})
    assert "PLANTED" in "".join(stored(database_url, files))  # the search covers the stored environment
    assert_clean(dict(enumerate(stored(database_url, files))))


def test_lost_key_is_reported_and_affects_only_tasks_with_secrets(fleet: DockerFleet, processes: Processes) -> None:
    lost = fleet.jobs.submit("true", env=ENV, constraints={"worker_id": "nobody"})
    kept = fleet.jobs.submit("true", constraints={"worker_id": "nobody"})
    (key,) = processes.folder.rglob("secret.key")
    key.unlink()
    web = fleet.master.web_process()
    web.kill()
    eventually(lambda: fleet.master.process.children() not in ([], [web]) and fleet.master.is_healthy())
    task = fleet.jobs.ended(lost)
    assert (task["status"], task["reason"]) == ("failed", "secrets_lost")
    assert "the key that sealed them" in task["error"]
    assert fleet.jobs.status(kept) == "queued"
    assert fleet.jobs.ended(fleet.jobs.submit("true", env=ENV))["status"] == "completed"


def every_get(fleet: DockerFleet, task_ids: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The answers of every GET path for each task, and the beginning of the telemetry stream."""
    for route in ROUTES:
        if route.path in STREAMS or not any(operation.method == "GET" for operation in route.operations):
            continue
        for task_id in task_ids if "{task_id}" in route.path else ("",):
            values = {"task_id": task_id, "worker_id": "vault"}
            path = "/".join(values.get(part.strip("{}"), part) for part in route.path.split("/"))
            answer = fleet.master.get(path)
            yield path, f"{answer.headers} {answer.text}"
    with fleet.master.session.get(f"{fleet.master.url}/telemetry/stream", stream=True, timeout=10) as stream:
        yield "/telemetry/stream", next(stream.iter_content(65536, decode_unicode=True))


def stored(database_url: str, files: list[Path]) -> Iterator[str]:
    """Every byte of SQLite's files, or every row of PostgreSQL's tables."""
    if database_url.startswith("sqlite"):
        yield from (path.read_bytes().decode("latin-1") for path in files if path.name.startswith("tasks.db"))
        return
    with psycopg.connect(database_url) as connection:
        for table in ("tasks", "attempts", "events", "log_chunks", "workers"):
            yield repr(connection.execute(f"SELECT * FROM {table}").fetchall())


def assert_clean(places: dict[Any, Any]) -> None:
    for place, content in places.items():
        text = content if isinstance(content, str) else json.dumps(content, default=str)
        for form in FORMS:
            assert form not in text, place
