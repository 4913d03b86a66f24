"""The cost of tasks: submits, containers, placement of a queue, pages of a long history, a burst.

Times are measured by the client, or taken from the master's timestamps. Containers run on a real Docker Engine.
"""

import http.client
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.bench.client import AS_PROMETHEUS, fetch, fetch_json, percentile
from tests.bench.exposition import Scrape, quantile_between
from tests.bench.figures import PLACING
from tests.bench.fleet import Fleet, Master, running_master, running_simulator, running_worker
from tests.bench.history import fill_history
from tests.bench.processes import BenchError, wait_until
from tests.docker_engine import Engine, isolated_engine
from tests.ports import LOCALHOST

_CLIENTS = 8
_TIMEOUT_SECONDS = 120.0
_POLL_SECONDS = 0.02
_VISIBLE = "fleetpulse_heartbeat_receipt_to_visible_seconds"
_SMALL = {"cpu_required": 0.1, "memory_required": 32}

Row = dict[str, float | None]


class TaskPlan(NamedTuple):
    """The number of repetitions."""

    submits: int = 300
    containers: int = 20
    queued: int = 1_000
    history: int = 100_000
    pages: int = 50
    burst: int = 500


class TaskClient:
    """A client of the task API with one persistent connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection(LOCALHOST, port, timeout=60.0)

    def submit(self, **body: Any) -> str:
        """Submits a task and returns its id. Raises ``BenchError``."""
        answer = self._ask("POST", "/api/tasks", json.dumps(body), 201)
        return str(answer["task_id"])

    def get(self, path: str) -> Any:
        return self._ask("GET", path, None, 200)

    def close(self) -> None:
        self._connection.close()

    def _ask(self, method: str, path: str, body: str | None, expected: int) -> Any:
        self._connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = self._connection.getresponse()
        text = response.read()
        if response.status != expected:
            raise BenchError(f"{method} {path}: {response.status} {text[:300]!r}")
        return json.loads(text)


def measure_submits(folder: Path, plan: TaskPlan) -> Row:
    """Measures sequential submits, and pages of a long task history, on an idle master."""
    history = folder / "history"
    fill_history(history, plan.history)
    with running_master(folder, data_dir=history) as master, open_client(master) as client:
        submits = [_seconds_to_submit(client) for _ in range(plan.submits)]
        pages = {
            key: [_seconds_to_get(client, path) for _ in range(plan.pages)]
            for key, path in (
                ("task_page", "/api/tasks"),
                ("task_page_filtered", "/api/tasks?status=failed&worker_id=rack-10"),
            )
        }
    return {
        "history_tasks": float(plan.history),
        **_percentiles("submit", submits),
        **{name: value for key, seconds in pages.items() for name, value in _percentiles(key, seconds).items()},
    }


def measure_containers(folder: Path, plan: TaskPlan) -> Row:
    """Measures the time from submit to a running container, with the image present. Needs a Docker Engine."""
    try:
        with isolated_engine() as engine:
            return _measure_containers(folder, plan, engine)
    except (pytest.skip.Exception, pytest.fail.Exception) as error:
        raise BenchError(str(error)) from error


def measure_placing(folder: Path, plan: TaskPlan) -> Row:
    """Measures the time from the first worker until all queued tasks are placed."""
    with running_master(folder) as master:
        _submit_all(master, plan.queued, docker_image="busybox:1", command=["sleep", "30"], **_SMALL)
        with running_simulator(folder, master.grpc_port, PLACING, "--ramp", "0") as simulator:
            needed = (master.process, simulator)
            has_worker = lambda: bool(fetch_json(master.http_port, "/workers"))  # noqa: E731 - asked in the next line
            wait_until(has_worker, _TIMEOUT_SECONDS, "no worker connected", *needed, poll_seconds=_POLL_SECONDS)
            started = time.perf_counter()
            is_placed = lambda: not fetch_json(master.http_port, "/api/tasks?status=queued&limit=1")  # noqa: E731 - as above
            wait_until(is_placed, _TIMEOUT_SECONDS, "not all tasks are placed", *needed, poll_seconds=_POLL_SECONDS)
            return {"placing_seconds": time.perf_counter() - started, "placing_tasks": float(plan.queued)}


def measure_burst(fleet: Fleet, plan: TaskPlan) -> Row:
    """Measures heartbeats and submits during many concurrent submits."""
    before = Scrape(_scrape(fleet))
    seconds = _submit_all(fleet.master, plan.burst, docker_image="busybox:1", command=["sleep", "5"], **_SMALL)
    after = Scrape(_scrape(fleet))
    return {
        **_percentiles("burst_submit", seconds),
        "burst_submits": float(len(seconds)),
        **{
            f"burst_receipt_to_visible_p{percent}_seconds": quantile_between(before, after, _VISIBLE, percent / 100.0)
            for percent in (50, 99)
        },
    }


@contextmanager
def open_client(master: Master) -> Iterator[TaskClient]:
    client = TaskClient(master.http_port)
    try:
        yield client
    finally:
        client.close()


def _measure_containers(folder: Path, plan: TaskPlan, engine: Engine) -> Row:
    seconds = []
    with (
        running_master(folder) as master,
        running_worker(folder, master, **engine.env) as worker,
        open_client(master) as client,
    ):
        wait_until(
            lambda: Scrape(_text(master)).count("fleetpulse_worker_schedulable", 1.0) == 1,
            _TIMEOUT_SECONDS, "the worker cannot run tasks", master.process, worker,
        )  # fmt: skip
        for _ in range(plan.containers):
            task_id = client.submit(docker_image=engine.image, command=["sleep", "0.1"], **_SMALL)
            task = _ended(client, task_id)
            if task["status"] != "completed":
                raise BenchError(f"a task failed: {task['error']}")
            seconds.append(task["running_at"] - task["created_at"])
    engine.remove_containers("bench")
    return _percentiles("submit_to_running", seconds)


def _ended(client: TaskClient, task_id: str) -> Any:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while (task := client.get(f"/api/tasks/{task_id}"))["finished_at"] is None:
        if time.monotonic() > deadline:
            raise BenchError(f"{task_id} is still {task['status']}: {task['queue_reason']}")
        time.sleep(_POLL_SECONDS)
    return task


def _submit_all(master: Master, count: int, **body: Any) -> list[float]:
    """Submits over several connections as fast as possible. Returns the seconds of each submit."""
    seconds: list[float] = []
    failures: list[BaseException] = []

    def submit_share(share: int) -> None:
        try:
            with open_client(master) as client:
                seconds.extend(_seconds_to_submit(client, **body) for _ in range(share))
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    shares = [count // _CLIENTS + (number < count % _CLIENTS) for number in range(_CLIENTS)]
    threads = [threading.Thread(target=submit_share, args=(share,), name="bench-submits") for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise BenchError(f"submits failed: {failures[0]!r}") from failures[0]
    return seconds


def _seconds_to_submit(client: TaskClient, **body: Any) -> float:
    started = time.perf_counter()
    client.submit(**(body or {"docker_image": "busybox:1", "command": ["true"], "cpu_required": 1000}))
    return time.perf_counter() - started


def _seconds_to_get(client: TaskClient, path: str) -> float:
    started = time.perf_counter()
    client.get(path)
    return time.perf_counter() - started


def _percentiles(key: str, seconds: Sequence[float]) -> Row:
    return {f"{key}_p{percent}_seconds": percentile(seconds, percent) for percent in (50, 99)}


def _scrape(fleet: Fleet) -> str:
    return _text(fleet.master)


def _text(master: Master) -> str:
    return fetch(master.http_port, "/metrics", accept=AS_PROMETHEUS, packed=True).body.decode()
