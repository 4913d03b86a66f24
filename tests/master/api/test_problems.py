"""master.api.problems: every error is a problem as RFC 9457 has it"""

from typing import Any

import falcon
import pytest

from fleetpulse.master import errors
from fleetpulse.master.api.problems import STATUS_BY_ERROR
from tests.master.hostile import BAD_WORKER_IDS
from tests.master.web import Web


def problem(result: Any, status: int) -> Any:
    """The body of an answer that must be a problem with this status."""
    assert result.status_code == status
    assert result.headers["Content-Type"] == "application/problem+json"
    assert result.json.keys() <= {"type", "title", "status", "detail", "instance"}
    assert result.json["type"] == "about:blank"
    assert result.json["status"] == status
    assert result.json["title"] == falcon.code_to_http_status(status).partition(" ")[2]
    return result.json


def test_unknown_path_is_a_404(web: Web) -> None:
    body = problem(web.client.simulate_get("/nothing/here"), 404)
    assert body["instance"] == "/nothing/here"
    assert "docs/rest.md" in body["detail"]


@pytest.mark.parametrize("path", ["/telemetry/stranger", "/api/workers/stranger", "/api/workers/stranger/metrics"])
def test_unknown_worker_is_a_404(web: Web, path: str) -> None:
    body = problem(web.client.simulate_get(path), 404)
    assert body["detail"] == "no worker has the id 'stranger'"
    assert body["instance"] == path
    head = web.client.simulate_head(path)
    assert (head.status_code, head.content) == (404, b"")


@pytest.mark.parametrize("path", ["/health", "/telemetry", "/telemetry/rack-7", "/workers", "/api/workers", "/metrics"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_unsupported_method_is_a_405(web: Web, method: str, path: str) -> None:
    result = web.client.simulate_request(method, path)
    assert "Allow" in problem(result, 405)["detail"]
    assert {"GET", "HEAD"} <= set(result.headers["Allow"].split(", "))


def test_options_lists_the_methods(web: Web) -> None:
    result = web.client.simulate_options("/api/workers/rack-7")
    assert result.status_code == 200
    assert {"GET", "HEAD", "DELETE"} <= set(result.headers["Allow"].split(", "))


@pytest.mark.filterwarnings("ignore:Unknown REQUEST_METHOD")  # from falcon's test client
def test_unknown_method_is_a_400(web: Web) -> None:
    problem(web.client.simulate_request("BREW", "/telemetry"), 400)


@pytest.mark.parametrize("prefix", ["/telemetry/", "/api/workers/"])
@pytest.mark.parametrize("worker_id", [*BAD_WORKER_IDS, "../../etc", "\udcff"], ids=lambda text: ascii(text[:20]))
def test_malformed_worker_id_is_a_404(web: Web, prefix: str, worker_id: str) -> None:
    web.fleet.beat("rack-7")
    path = prefix + worker_id
    environ_path = path.encode("utf-8", "surrogateescape").decode("latin-1")  # as a server gives it
    result = web.client.simulate_get("/", extras={"PATH_INFO": environ_path})
    body = problem(result, 404)
    assert "\n" not in body["detail"]
    assert web.json("/telemetry").keys() == {"rack-7"}


def test_trailing_slash_is_a_404(web: Web) -> None:
    problem(web.client.simulate_get("/telemetry/rack-7/"), 404)


# The master's own errors


class Raising:
    """A resource that fails."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def on_get(self, _req: falcon.Request, _resp: falcon.Response) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidMessage("the id is bad"), 400),
        (errors.InvalidReading("the reading is bad"), 400),
        (errors.UnknownWorker("rack-9"), 404),
        (errors.WorkerStillActive("it beats"), 409),
        (errors.FleetFull("no more"), 503),
        (errors.MasterStopping("on its way out"), 503),
        (errors.UnknownTask("task-9"), 404),
        (errors.TaskAlreadyFinished("it has ended"), 409),
        (errors.IdempotencyConflict("the key was used"), 409),
        (errors.LogExpired("it was deleted"), 410),
        (errors.InvalidCursor("not one of ours"), 422),
        (errors.StoreUnavailable("the disk is full"), 503),
        (errors.FleetPulseError("something else"), 500),
    ],
)
def test_error_is_mapped_to_its_status(web: Web, error: errors.FleetPulseError, status: int) -> None:
    web.app.add_route("/raising", Raising(error))
    assert problem(web.client.simulate_get("/raising"), status)["detail"] == str(error)


def test_mapped_statuses_are_error_statuses() -> None:
    assert set(STATUS_BY_ERROR.values()) <= set(range(400, 600))


def test_unexpected_error_is_a_logged_500_without_details(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    web.app.add_route("/raising", Raising(RuntimeError("secret detail")))
    result = web.client.simulate_get("/raising")
    assert "its log says why" in problem(result, 500)["detail"]
    assert "secret" not in result.text
    assert "GET /raising failed" in caplog.text
    assert "secret detail" in caplog.text
    assert web.fleet.metric("http_requests_total", route="/raising", method="GET", status="500") == 1
    assert web.json("/telemetry") == {}


def test_falcon_error_keeps_its_description(web: Web) -> None:
    web.app.add_route("/raising", Raising(falcon.HTTPUnprocessableEntity(description="no such status")))
    assert problem(web.client.simulate_get("/raising"), 422)["detail"] == "no such status"
