"""master.api.workers, over the whole web application and a live table"""

import time
from collections.abc import Callable
from typing import Any

import pytest

from fleetpulse.master.telemetry.records import Registration
from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.master.fleet import full_heartbeat, settle
from tests.master.web import Web

OF_THE_FLEET = ["/telemetry", "/workers", "/api/workers"]
OF_ONE = ["/telemetry/rack-7", "/api/workers/rack-7", "/api/workers/rack-7/metrics"]


@pytest.fixture(autouse=True)
def rack_7(web: Web) -> None:
    """Every test begins with one worker."""
    web.fleet.manager.register_worker("rack-7", Registration("first", hostname="rack-7.example.com"))
    web.fleet.manager.process_heartbeat(full_heartbeat("rack-7"))
    settle()


def test_telemetry(web: Web) -> None:
    everyone = web.json("/telemetry")
    assert everyone.keys() == {"rack-7"}
    assert everyone["rack-7"]["cpu_usage"] == 12.5
    assert everyone["rack-7"]["last_update"] == int(web.fleet.clock.wall)
    assert web.json("/telemetry/rack-7") == everyone["rack-7"]


def test_workers(web: Web) -> None:
    web.fleet.beat("rack-8")
    web.fleet.pass_time(60.0)
    web.fleet.beat("rack-8")
    now = int(web.fleet.clock.wall)
    assert web.json("/workers") == {
        "rack-7": {"worker_id": "rack-7", "is_active": False, "running_tasks_count": 1, "last_update": now - 60},
        "rack-8": {"worker_id": "rack-8", "is_active": True, "running_tasks_count": 0, "last_update": now},
    }


def test_details_and_metrics(web: Web) -> None:
    (details,) = web.json("/api/workers")
    assert details["hostname"] == "rack-7.example.com"
    assert details["heartbeats"] == {
        "received": 1, "dropped": 0, "missed": 0, "refused": 0, "refusal": None, "refused_since": None,
        "clock_skew_seconds": 0.0,
    }  # fmt: skip
    assert details["telemetry"] == web.json("/telemetry/rack-7")
    assert web.json("/api/workers/rack-7") == details
    metrics = web.json("/api/workers/rack-7/metrics")
    assert metrics["gpus"][1]["utilization_percent"] is None
    assert metrics == {name: details["telemetry"][name] for name in metrics}


def test_every_path_shows_a_change_at_once(web: Web) -> None:
    for path in OF_THE_FLEET + OF_ONE:
        web.json(path)
    web.fleet.manager.process_heartbeat(pb.Heartbeat(worker_id="rack-7", incarnation_id="first", sequence_number=2))
    settle()
    assert web.json("/api/workers/rack-7/metrics")["cpu"]["usage_percent"] is None
    assert web.json("/telemetry")["rack-7"]["cpu_usage"] is None
    assert web.json("/workers")["rack-7"]["running_tasks_count"] == 0
    web.fleet.manager.unregister_worker("rack-7")
    assert [web.json(path) for path in OF_THE_FLEET] == [{}, {}, []]
    assert [web.client.simulate_get(path).status_code for path in OF_ONE] == [404, 404, 404]


# Health


def test_healthy(web: Web) -> None:
    before = int(time.time())
    result = web.client.simulate_get("/health")
    assert result.status_code == 200
    assert before <= result.json["time"] <= time.time()
    assert result.json == {"status": "healthy", "time": result.json["time"], "version": "1.2.3"}
    assert result.headers["Cache-Control"] == "no-store"


def test_unhealthy(web: Web) -> None:
    web.health_errors["grpc"] = "the gRPC server takes no calls"
    result = web.client.simulate_get("/health")
    assert result.status_code == 503
    assert result.json["status"] == "unhealthy"
    assert result.json["failing"] == {"grpc": "the gRPC server takes no calls"}
    assert web.client.simulate_head("/health").status_code == 503


def test_overloaded_master_is_degraded_and_answers(web: Web) -> None:
    web.overload = "overloaded: the oldest message of a worker has waited for 7 s"
    result = web.client.simulate_get("/health")
    assert result.status_code == 200
    assert (result.json["status"], result.json["failing"]) == ("degraded", {"grpc": web.overload})
    web.health_errors["grpc"] = "the gRPC server takes no calls"
    result = web.client.simulate_get("/health")
    assert (result.status_code, result.json["status"]) == (503, "unhealthy")
    assert result.json["failing"] == {"grpc": "the gRPC server takes no calls"}


# HEAD


@pytest.mark.parametrize("path", ["/health", *OF_THE_FLEET, *OF_ONE])
def test_head_is_get_without_the_body(web: Web, path: str) -> None:
    get, head = web.client.simulate_get(path), web.client.simulate_head(path)
    assert head.content == b""
    assert (head.status, dict(head.headers)) == (get.status, dict(get.headers))
    assert head.headers["Content-Type"] == "application/json"
    assert int(head.headers["Content-Length"]) == len(get.content)


# Conditional requests


def conditional(web: Web, path: str, etag: str, method: str = "GET") -> Any:
    return web.client.simulate_request(method, path, headers={"If-None-Match": etag})


@pytest.mark.parametrize("path", OF_THE_FLEET + OF_ONE)
def test_matching_etag_gets_304(web: Web, path: str) -> None:
    first = web.client.simulate_get(path)
    etag = first.headers["ETag"]
    assert etag.startswith('W/"')
    for method in ("GET", "HEAD"):
        again = conditional(web, path, etag, method)
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["ETag"] == etag
        assert again.headers["Cache-Control"] == first.headers["Cache-Control"] == "private, no-cache"
        assert "Content-Type" not in again.headers
    for other in ('"other"', 'W/"other"', etag.replace("-", "x")):
        assert conditional(web, path, other).status_code == 200
    assert conditional(web, path, f'"other", {etag}').status_code == 304
    assert conditional(web, path, etag.removeprefix("W/")).status_code == 304  # the comparison is weak


@pytest.mark.parametrize("path", OF_THE_FLEET + OF_ONE)
def test_etag_changes_with_every_change(web: Web, path: str) -> None:
    etags = {web.client.simulate_get(path).headers["ETag"]}
    changes: list[Callable[[], None]] = [
        lambda: web.fleet.beat(incarnation_id="first", sequence_number=2),
        lambda: web.fleet.pass_time(30.0),
        lambda: web.fleet.manager.register_worker("rack-7", Registration("first", version="2")),
        lambda: web.fleet.manager.unregister_worker("rack-7"),
    ]
    for number, change in enumerate(changes, start=1):
        change()
        if "rack-7" not in web.fleet.manager.get_all_worker_telemetry():
            web.fleet.manager.register_worker("rack-7")
        etags.add(web.client.simulate_get(path).headers["ETag"])
        assert len(etags) == number + 1


def test_etag_of_an_unchanged_worker_stays(web: Web) -> None:
    one = web.client.simulate_get("/telemetry/rack-7").headers["ETag"]
    everyone = web.client.simulate_get("/telemetry").headers["ETag"]
    web.fleet.beat("rack-8")
    assert conditional(web, "/telemetry/rack-7", one).status_code == 304
    assert conditional(web, "/telemetry", everyone).status_code == 200


def test_etag_wildcard_gets_304(web: Web) -> None:
    assert conditional(web, "/telemetry", "*").status_code == 304
    assert conditional(web, "/telemetry/stranger", "*").status_code == 404


# DELETE


def test_inactive_worker_can_be_deleted(web: Web) -> None:
    active = web.client.simulate_delete("/api/workers/rack-7")
    assert active.status_code == 409
    assert "rack-7 is active" in active.json["detail"]
    web.fleet.pass_time(30.0)
    gone = web.client.simulate_delete("/api/workers/rack-7")
    assert (gone.status_code, gone.content) == (204, b"")
    assert web.json("/telemetry") == {}
    assert web.client.simulate_delete("/api/workers/rack-7").status_code == 404
