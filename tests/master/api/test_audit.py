"""master.api.audit and ``/api/audit``"""

from enum import IntEnum
from typing import Any, NamedTuple

import falcon
import msgspec
import pytest
from falcon.testing import Result, TestClient

from fleetpulse.master.api import middleware, problems
from fleetpulse.master.api.audit import AuditResource
from fleetpulse.master.api.middleware import AuditMiddleware
from fleetpulse.master.api.routes import ROUTES
from fleetpulse.master.audit.entries import AuditEntry, AuditOutcome, AuditRecord
from fleetpulse.master.audit.reader import AuditPage, AuditQuery
from fleetpulse.master.errors import AuditUnavailable, InvalidCursor, StoreUnavailable
from fleetpulse.master.instruments import Instruments
from tests.master.audit.given import recorded

SECRET = "c0ffee-secret"
NOW = 1_700_000_000.0
Role = IntEnum("Role", ["OPEN", "READ", "SUBMIT", "ADMIN"])


class Identity(NamedTuple):
    """Who asks."""

    name: str
    role: Role
    auth_method: str


class FakeAccess:
    """Lets through who brings a token, as another part of the master does."""

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        token = req.get_header("Authorization")
        if token == "Bearer ci":
            req.context.identity = Identity("ci", Role.SUBMIT, "token")
        elif token == "Bearer page":
            req.context.identity = Identity("ops", Role.ADMIN, "session")
        elif token is not None:
            raise falcon.HTTPUnauthorized(description="this token is not known")

    def process_resource(self, req: falcon.Request, _resp: falcon.Response, resource: Any, _params: Any) -> None:
        if (
            isinstance(resource, Answering)
            and resource.role > getattr(req.context, "identity", Identity("", Role.OPEN, "")).role
        ):
            raise falcon.HTTPForbidden(description="it may not do that")


class Answering:
    """Answers every method as it is told."""

    def __init__(self, error: Exception | None = None, location: str | None = None, role: Role = Role.OPEN) -> None:
        self._error, self._location, self.role = error, location, role

    def on_get(self, _req: falcon.Request, resp: falcon.Response, **_params: str) -> None:
        if self._error is not None:
            raise self._error
        resp.data = b'{"secret":"' + b"x" * 5000 + b'"}'
        if self._location is not None:
            resp.location = self._location

    on_head = on_post = on_delete = on_put = on_get


class RecordedApi:
    """REST that records."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []
        self.app: falcon.App[Any, Any] = falcon.App(
            middleware=[
                middleware.RequestMetrics(Instruments()),
                AuditMiddleware(self.entries.append, ROUTES),
                middleware.Fairness(),
                middleware.Compression(),
                FakeAccess(),
            ]
        )
        problems.install(self.app)
        self.client = TestClient(self.app)

    def serve(self, path: str, resource: object = Answering()) -> None:
        self.app.add_route(path, resource)

    def ask(self, method: str, path: str, token: str | None = None, **options: Any) -> Result:
        headers = {**options.pop("headers", {}), **({} if token is None else {"Authorization": f"Bearer {token}"})}
        result: Result = self.client.simulate_request(method, path, headers=headers, **options)
        return result

    def entry(self) -> AuditEntry:
        """The only one."""
        (one,) = self.entries
        return one


@pytest.fixture
def api() -> RecordedApi:
    return RecordedApi()


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_successful_reads_are_not_recorded(api: RecordedApi, method: str) -> None:
    api.serve("/api/tasks")
    for path in ("/api/tasks", "/nothing"):
        api.ask(method, path)
    assert api.entries == []


def test_change_is_recorded_with_actor_client_and_outcome(api: RecordedApi) -> None:
    api.serve("/api/tasks", Answering(location="/api/tasks/task-7"))
    api.ask("POST", "/api/tasks", "ci", remote_addr="192.0.2.7", json={"env": {"A": SECRET}}, params={"a": SECRET})
    assert api.entry() == AuditEntry(
        "ci", "submit", "http", "192.0.2.7", "submit_task", "/api/tasks/task-7", AuditOutcome.OK, "200", ""
    )
    assert SECRET not in str(api.entries)


def test_request_of_the_page_has_its_own_source(api: RecordedApi) -> None:
    api.serve("/api/workers/{worker_id}/drain")
    api.ask("POST", "/api/workers/rack-7/drain", "page")
    one = api.entry()
    assert (one.actor, one.role, one.source, one.action) == ("ops", "admin", "page", "drain_worker")


def test_change_without_identity_is_recorded_as_anonymous(api: RecordedApi) -> None:
    api.serve("/api/tasks/{task_id}")
    api.ask("DELETE", "/api/tasks/task-7")
    assert (api.entry().actor, api.entry().role, api.entry().action) == ("anonymous", None, "cancel_task")


def test_forwarded_headers_are_ignored(api: RecordedApi) -> None:
    api.serve("/api/tasks")
    api.ask("POST", "/api/tasks", headers={"X-Forwarded-For": "203.0.113.1", "Forwarded": "for=203.0.113.1"})
    assert api.entry().client == "127.0.0.1"


@pytest.mark.parametrize("method", ["DELETE", "GET", "HEAD", "POST"])
def test_refused_request_is_recorded_for_any_method(api: RecordedApi, method: str) -> None:
    api.serve("/api/tasks")
    api.ask(method, "/api/tasks", SECRET)
    one = api.entry()
    assert (one.outcome, one.status, one.detail) == (AuditOutcome.REFUSED, "401", "this token is not known")
    assert one.action == {"GET": "list_tasks", "HEAD": "list_tasks", "POST": "submit_task"}.get(method, "(none)")
    assert SECRET not in str(api.entries)


@pytest.mark.parametrize("status", [403, 421, 429])
def test_every_refusal_status_is_recorded(api: RecordedApi, status: int) -> None:
    api.serve("/telemetry/{worker_id}", Answering(falcon.HTTPError(status, description="so it is")))
    api.ask("GET", "/telemetry/rack-7", "ci")
    assert api.entry() == AuditEntry(
        "ci", "submit", "http", "127.0.0.1", "get_worker_telemetry", "/telemetry/rack-7", AuditOutcome.REFUSED,
        str(status), "so it is",
    )  # fmt: skip


@pytest.mark.parametrize(("status", "reason"), [(503, "readers"), (413, "body_too_large")])
def test_rejection_by_a_limit_is_recorded_as_refused(api: RecordedApi, status: int, reason: str) -> None:
    api.serve("/telemetry/stream", Answering(problems.Rejection(status, reason, "so it is")))
    api.ask("GET", "/telemetry/stream", "ci")
    one = api.entry()
    assert (one.action, one.outcome, one.status) == ("stream_telemetry", AuditOutcome.REFUSED, str(status))
    assert one.detail == f"{reason}: so it is"


def test_forbidden_request_is_recorded_with_its_actor(api: RecordedApi) -> None:
    api.serve("/api/workers/{worker_id}", Answering(role=Role.ADMIN))
    api.ask("DELETE", "/api/workers/rack-7", "ci")
    assert (api.entry().actor, api.entry().action, api.entry().status) == ("ci", "forget_worker", "403")


@pytest.mark.parametrize(
    ("error", "outcome", "status", "detail"),
    [
        (falcon.HTTPUnprocessableEntity(description=SECRET), "refused", "422", "Unprocessable Entity"),
        (StoreUnavailable(SECRET), "failed", "503", "Service Unavailable"),
        (RuntimeError(SECRET), "failed", "500", "Internal Server Error"),
    ],
)
def test_failure_is_recorded_without_the_request_content(
    api: RecordedApi, error: Exception, outcome: str, status: str, detail: str
) -> None:
    api.serve("/api/tasks", Answering(error))
    api.ask("POST", "/api/tasks")
    one = api.entry()
    assert (one.outcome, one.status, one.detail) == (outcome, status, detail)
    assert SECRET not in str(one)


def test_unknown_path_has_no_action(api: RecordedApi) -> None:
    api.ask("POST", "/admin\x1b[2J\n")
    assert (api.entry().action, api.entry().status) == ("(none)", "404")


def test_literal_path_is_matched_before_a_template(api: RecordedApi) -> None:
    api.ask("GET", "/telemetry/stream", SECRET)
    assert api.entry().action == "stream_telemetry"


def test_every_changing_operation_is_recorded_by_its_name(api: RecordedApi) -> None:
    operations = [(route.path, one) for route in ROUTES for one in route.operations if one.method != "GET"]
    assert len(operations) > 4
    for path, one in operations:
        api.entries.clear()
        api.ask(one.method, path.replace("{", "").replace("}", ""))
        assert api.entry().action == one.name


# /api/audit


class FakeTrail:
    """A trail that answers what it is told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[AuditQuery] = []
        self.page = AuditPage([recorded(1.5)], None, None)
        self.error: Exception | None = None

    def read(self, query: AuditQuery) -> AuditPage:
        self.asked.append(query)
        if self.error is not None:
            raise self.error
        return self.page


class AuditApi:
    """``/api/audit`` at a fixed time."""

    def __init__(self) -> None:
        self.trail = FakeTrail()
        app: falcon.App[Any, Any] = falcon.App()
        problems.install(app)
        app.add_route("/api/audit", AuditResource(self.trail.read, lambda: NOW))
        self._client = TestClient(app)

    def get(self, query: str = "") -> Result:
        result: Result = self._client.simulate_get("/api/audit", query_string=query)
        return result


@pytest.fixture
def reading() -> AuditApi:
    return AuditApi()


def test_default_page_is_the_newest_100_entries(reading: AuditApi) -> None:
    result = reading.get()
    assert msgspec.json.decode(result.content, type=list[AuditRecord]) == reading.trail.page.entries
    assert reading.trail.asked == [AuditQuery(100)]
    assert "Link" not in result.headers


def test_link_to_the_next_page_keeps_the_filters(reading: AuditApi) -> None:
    reading.trail.page = reading.trail.page._replace(next_cursor="0a0b0c0d-12")
    result = reading.get("since=-1h&actor=worker:a b&action=register&outcome=refused&limit=7&cursor=0a0b0c0d-99")
    query = AuditQuery(7, NOW - 3600, "worker:a b", "register", AuditOutcome.REFUSED, "0a0b0c0d-99")
    assert reading.trail.asked == [query]
    link = result.headers["Link"].partition(">")[0].removeprefix("</api/audit?")
    reading.get(link)
    assert reading.trail.asked[-1] == query._replace(cursor="0a0b0c0d-12")


def test_link_to_newer_entries_keeps_the_filters(reading: AuditApi) -> None:
    reading.trail.page = reading.trail.page._replace(newest="0a0b0c0d-12")
    result = reading.get("since=-1h&actor=ci&limit=7")
    address, _, relation = result.headers["Link"].partition(">")
    assert 'rel="prev"' in relation.replace("rel=prev", 'rel="prev"')
    reading.get(address.removeprefix("</api/audit?"))
    assert reading.trail.asked[-1] == AuditQuery(7, NOW - 3600, "ci", after="0a0b0c0d-12")


@pytest.mark.parametrize(
    "query",
    [
        "outcome=bad",
        "limit=0",
        "limit=1001",
        "since=yesterday",
        "actor=a&actor=b",
        "cursor=a b",
        "after=a b",
        "cursor=0a0b0c0d-1&after=0a0b0c0d-1",
        "who=me",
    ],
)
def test_invalid_query_is_a_422(reading: AuditApi, query: str) -> None:
    assert reading.get(query).status_code == 422
    assert reading.trail.asked == []


@pytest.mark.parametrize(("error", "status"), [(InvalidCursor("no"), 422), (AuditUnavailable("no"), 503)])
def test_error_of_the_trail_becomes_a_problem(reading: AuditApi, error: Exception, status: int) -> None:
    reading.trail.error = error
    assert reading.get().status_code == status
