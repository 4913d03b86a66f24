"""REST over the real server: hostile paths, methods, compression, caching, many clients at once."""

import gzip
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from fleetpulse.master.api.routes import ROUTES
from tests.e2e.masters import Master, MasterClient
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST

pytestmark = pytest.mark.e2e

FLEET = 12
WORKER_ID = "sim-01"
PATHS = ("/telemetry", f"/telemetry/{WORKER_ID}", "/workers", "/api/workers", f"/api/workers/{WORKER_ID}",
         f"/api/workers/{WORKER_ID}/metrics")  # fmt: skip
PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def master(shared_processes: Processes, shared_master: Master) -> Iterator[Master]:
    """A master with a small fleet, half of it with GPUs."""
    fleet = shared_processes.simulate(shared_master.target, FLEET, "--gpu-share", "0.5")
    eventually(lambda: len(shared_master.samples("fleetpulse_worker_cpu_usage_ratio")) == FLEET)
    yield shared_master
    assert shared_master.active() == FLEET
    fleet.kill_all()


def answer(master: Master, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any, bytes]:
    """Sends a request with the path unchanged; `requests` would normalise it."""
    connection = http.client.HTTPConnection(LOCALHOST, master.http_port, timeout=10)
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    if body:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body or None)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, response.headers, content


def assert_is_problem(status: int, headers: Any, body: bytes, expected: int) -> None:
    assert status == expected
    assert headers["Content-Type"] == PROBLEM
    problem = json.loads(body)
    assert problem["status"] == expected
    assert problem["title"] == http.client.responses[expected]
    assert problem["detail"]


HOSTILE = [
    "..%2f..", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e", "..", "%22", "'", "%27%20or%201=1--", "a%0ab", "%00", "%ff%fe",
    "a%0d%0aX-Injected:%20yes", "%ed%a0%80", "%e2%80%ae", "%7Bworker_id%7D", "{}", "sim-01%20", "%", "%zz", "*",
    "a" * 2000,
]  # fmt: skip


@pytest.mark.parametrize("segment", HOSTILE)
@pytest.mark.parametrize("prefix", ["/telemetry/", "/api/workers/"])
def test_unknown_worker_is_a_404(prefix: str, segment: str, master: Master) -> None:
    status, headers, body = answer(master, "GET", prefix + segment)
    assert_is_problem(status, headers, body, 404)
    assert headers["X-Injected"] is None
    assert b"\n" not in body


@pytest.mark.parametrize("path", ["/page", "/telemetry/", "/telemetry/x/y", "/nope", "/TELEMETRY", "/metrics/"])
def test_unknown_path_is_a_404(path: str, master: Master) -> None:
    assert_is_problem(*answer(master, "GET", path), 404)


def test_too_long_request_line_is_a_414(master: Master) -> None:
    status, headers, body = answer(master, "GET", "/telemetry/" + "a" * 10_000)
    assert status == 414
    assert headers["Connection"] == "close"
    assert len(body) < 1000


def test_hostile_paths_add_no_series(master: Master) -> None:
    for segment in HOSTILE:
        answer(master, "GET", f"/telemetry/{segment}")
        answer(master, "GET", f"/{segment}")
    routes = {labels[1] for labels in master.samples("fleetpulse_http_requests_total")}
    assert {"(none)", "/telemetry/{worker_id}"} <= routes
    assert routes <= {"(none)", *(route.path for route in ROUTES)}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/telemetry", "/workers", "/metrics", "/health"])
def test_unsupported_method_is_a_405(method: str, path: str, master: Master) -> None:
    status, headers, body = answer(master, method, path, b"{}")
    assert_is_problem(status, headers, body, 405)
    assert set(headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


@pytest.mark.parametrize("method", ["BREW", "TRACE", "CONNECT"])
def test_unknown_method_is_a_400(method: str, master: Master) -> None:
    status, _, _ = answer(master, method, "/telemetry")
    assert 400 <= status < 500


@pytest.mark.parametrize("path", [*PATHS, "/health", "/metrics"])
def test_head_is_get_without_body(path: str, master: Master) -> None:
    status, headers, body = answer(master, "HEAD", path)
    assert (status, body) == (200, b"")
    got_status, got_headers, got = answer(master, "GET", path)
    assert got_status == 200
    assert headers["Content-Type"] == got_headers["Content-Type"]
    # Readings change by a few digits between the two requests.
    assert int(headers["Content-Length"]) == pytest.approx(len(got), rel=0.1)


@pytest.mark.parametrize("path", ["/telemetry", "/api/workers", "/metrics"])
def test_gzip_on_request(path: str, master: Master) -> None:
    _, plain_headers, plain = answer(master, "GET", path)
    assert plain_headers["Content-Encoding"] is None
    assert "Accept-Encoding" in plain_headers["Vary"]
    status, headers, body = answer(master, "GET", path, Accept_Encoding="deflate, gzip;q=0.5")
    assert status == 200
    assert headers["Content-Encoding"] == "gzip"
    assert len(body) == int(headers["Content-Length"]) < 0.5 * len(plain)
    assert len(gzip.decompress(body)) == pytest.approx(len(plain), rel=0.1)
    _, headers, _ = answer(master, "GET", path, Accept_Encoding="gzip;q=0, identity")
    assert headers["Content-Encoding"] is None


@pytest.mark.parametrize("path", PATHS)
def test_unchanged_answer_is_a_304(path: str, master: Master) -> None:
    def unchanged() -> bool:
        _, headers, _ = answer(master, "GET", path)
        etag = headers["ETag"]
        status, headers, body = answer(master, "GET", path, If_None_Match=etag)
        if status == 304:
            assert (body, headers["ETag"]) == (b"", etag)
        return status == 304

    eventually(unchanged)
    status, _, body = answer(master, "GET", path, If_None_Match='W/"another"')
    assert status == 200
    assert body


def test_views_of_a_worker_agree(master: Master) -> None:
    ids = {f"sim-{number:02d}" for number in range(1, FLEET + 1)}
    assert set(master.json("/telemetry")) == set(master.json("/workers")) == ids
    assert {worker["worker_id"] for worker in master.json("/api/workers")} == ids
    with_gpus = [record for record in master.json("/telemetry").values() if record["gpus"]]
    assert len(with_gpus) == FLEET // 2
    for record in with_gpus:
        loads = [gpu["utilization_percent"] for gpu in record["gpus"]]
        assert record["gpu_usage"] == pytest.approx(sum(loads) / len(loads))
    for worker_id, summary in master.json("/workers").items():
        assert summary == {
            "worker_id": worker_id, "is_active": True, "running_tasks_count": 0, "last_update": summary["last_update"],
        }  # fmt: skip


def test_body_of_a_get_is_ignored(master: Master) -> None:
    client = MasterClient(master.http_port)
    for size in (10, 100_000):
        first = client.get("/workers", data=b"GET /nope HTTP/1.1\r\n\r\n" + b"x" * size)
        assert first.status_code == 200
        assert client.get("/workers").status_code == 200
    client.close()


def test_malformed_request_is_a_400(master: Master) -> None:
    for nonsense in (
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
    ):
        with socket.create_connection((LOCALHOST, master.http_port), timeout=10) as connection:
            connection.sendall(nonsense)
            assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
    assert master.is_healthy()


def test_active_worker_cannot_be_forgotten(master: Master) -> None:
    assert_is_problem(*answer(master, "DELETE", f"/api/workers/{WORKER_ID}"), 409)
    assert_is_problem(*answer(master, "DELETE", "/api/workers/nobody"), 404)
    assert master.workers()[WORKER_ID]


def test_many_concurrent_clients(master: Master) -> None:
    """Each client gets the complete answer to its own request."""
    failures: list[object] = []

    def ask(number: int) -> None:
        client = MasterClient(master.http_port)
        worker_id = f"sim-{number % FLEET + 1:02d}"
        try:
            for _ in range(25):
                assert client.json(f"/telemetry/{worker_id}")["worker_id"] == worker_id
                assert len(client.json("/workers")) == FLEET
        except (AssertionError, requests.RequestException, ValueError) as error:
            failures.append(error)
        finally:
            client.close()

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(24)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert failures == []
