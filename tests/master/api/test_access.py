"""Every path, and everybody: what each may do follows from the table of routes, and from nothing else."""

import base64
from pathlib import Path
from typing import Any, NamedTuple

import falcon
import pytest
from falcon.testing import TestClient

from fleetpulse.master.access.store import TokenFile, TokenStore
from fleetpulse.master.access.tokens import Role, make_token
from fleetpulse.master.api import problems
from fleetpulse.master.api.access import SESSION_COOKIE
from fleetpulse.master.api.operations import add_routes
from fleetpulse.master.api.routes import ROUTES
from tests.master.guards import TEST_HOST, access_of

FIELDS = {"worker_id": "rack-7", "task_id": "t1", "page_version": "0123456789ab", "page_file": "app.js"}
OPERATIONS = [(route.path, operation) for route in ROUTES for operation in route.operations]
ASKED = [
    pytest.param(path, method, operation.role, id=f"{method} {path}")
    for path, operation in OPERATIONS
    for method in ([operation.method, "HEAD"] if operation.method == "GET" else [operation.method])
]
ROLE_OF = {
    "none": None, "wrong": None, "expired": None, "revoked": None, "malformed": None, "no scheme": None,
    "read": Role.READ, "submit": Role.SUBMIT, "admin": Role.ADMIN, "owner": Role.ADMIN,
    "session read": Role.READ, "session admin": Role.ADMIN, "session over": None,
    "password of read": Role.READ, "password of admin": Role.READ, "wrong password": None,
}  # fmt: skip
"""What each shows gives."""


class Anything:
    """A resource that answers every request, and says who it is for."""

    def answer(self, req: falcon.Request, resp: falcon.Response, **_fields: str) -> None:
        resp.media = list(req.context.identity or ())


class Shown(NamedTuple):
    """What somebody shows."""

    headers: dict[str, str]
    client: TestClient


class Site:
    """An app with every path of the table, behind a guard with tokens of every kind."""

    def __init__(self, folder: Path, *, is_open: bool = False) -> None:
        file = TokenFile(folder / "tokens.json")
        self.shown: dict[str, dict[str, str]] = {"none": {}, "malformed": bearer("x y"), "no scheme": auth("abc")}
        if not is_open:
            for name, role in (("read", Role.READ), ("submit", Role.SUBMIT), ("admin", Role.ADMIN)):
                self.shown[name] = bearer(self._make(file, name, role))
            self.shown["expired"] = bearer(self._make(file, "expired", Role.ADMIN, expires=1.0))
            self.shown["revoked"] = bearer(self._make(file, "revoked", Role.ADMIN, revoked=1.0))
            self.shown["password of read"] = basic(self._make(file, "scraper", Role.READ))
            self.shown["password of admin"] = basic(self._make(file, "root", Role.ADMIN))
        _, never_kept = make_token("nobody", Role.ADMIN, 0.0, None)
        self.shown["wrong"], self.shown["wrong password"] = bearer(never_kept), basic(never_kept)
        _, owner = make_token("owner", Role.ADMIN, 0.0, None)
        self.shown["owner"] = bearer(owner)
        self.access = access_of(TokenStore(file, owner))
        for name, secret in (("session read", self.shown.get("read")), ("session admin", self.shown.get("admin"))):
            if secret is not None:
                begun = self.access.sessions.begin(secret["Authorization"].removeprefix("Bearer "))
                assert begun is not None
                self.shown[name] = session(begun[0])
        self.shown["session over"] = session("over")
        app: falcon.App[Any, Any] = falcon.App(middleware=[self.access.middleware])
        problems.install(app)
        add_routes(app, ROUTES, {route.path: resource_for(route.path) for route in ROUTES})
        self.client = TestClient(app)

    def _make(
        self, file: TokenFile, name: str, role: Role, *, expires: float | None = None, revoked: float | None = None
    ) -> str:
        token, secret = make_token(name, role, 0.0, None)
        file.change(lambda tokens: [*tokens, token._replace(expires=expires, revoked=revoked)])
        return secret

    def ask(self, method: str, path: str, **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.simulate_request(method, path.format(**FIELDS), headers=named)

    def status(self, method: str, path: str, **headers: str) -> int:
        status: int = self.ask(method, path, **headers).status_code
        return status


def resource_for(path: str) -> object:
    methods = {operation.method for other, operation in OPERATIONS if other == path}
    responders = {
        f"on_{method.lower()}": Anything.answer for method in methods | ({"HEAD"} if "GET" in methods else set())
    }
    return type("Stub", (Anything,), responders)()


def auth(value: str) -> dict[str, str]:
    return {"Authorization": value}


def bearer(secret: str) -> dict[str, str]:
    return auth(f"Bearer {secret}")


def session(cookie: str) -> dict[str, str]:
    return {"Cookie": f"{SESSION_COOKIE}={cookie}", "Origin": f"http://{TEST_HOST}"}


def basic(secret: str) -> dict[str, str]:
    return auth("Basic " + base64.b64encode(f"prometheus:{secret}".encode()).decode())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("closed"))


@pytest.fixture(scope="module")
def open_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("open"), is_open=True)


def test_table_covers_every_kind_of_credential(site: Site) -> None:
    assert site.shown.keys() == ROLE_OF.keys()


@pytest.mark.parametrize("who", ROLE_OF)
@pytest.mark.parametrize(("path", "method", "role"), ASKED)
def test_role_decides_access_to_every_operation(site: Site, path: str, method: str, role: Role, who: str) -> None:
    given = ROLE_OF[who]
    # What is shown must be good even where nothing needs to be.
    shows_something_bad = given is None and "Authorization" in site.shown[who]
    if shows_something_bad or (given is None and role is not Role.OPEN):
        expected = 401
    else:
        expected = 200 if given is None or given >= role else 403
    result = site.ask(method, path, **site.shown[who])
    assert result.status_code == expected
    if expected == 401:
        assert result.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(("path", "method", "role"), ASKED)
def test_every_path_is_open_while_no_token_exists(open_site: Site, path: str, method: str, role: Role) -> None:
    assert open_site.status(method, path) == 200, role


@pytest.mark.parametrize("who", ["wrong", "malformed", "wrong password", "no scheme"])
def test_wrong_token_is_refused_on_open_paths_too(open_site: Site, who: str) -> None:
    assert open_site.status("GET", "/workers", **open_site.shown[who]) == 401


def test_forbidden_answer_names_the_missing_role(site: Site) -> None:
    answer = site.ask("POST", "/api/tasks", **site.shown["read"]).json
    assert answer["detail"] == "this takes the role submit, and read has read"


def test_session_needs_an_origin_to_change_something(site: Site) -> None:
    cookie = {"Cookie": site.shown["session admin"]["Cookie"]}
    assert site.status("GET", "/workers", **cookie) == 200
    assert site.status("POST", "/api/tasks", **cookie) == 403
    assert site.status("POST", "/api/tasks", **cookie, Origin="null") == 403


FOREIGN = ["http://evil.example", "https://falconframework.org.evil.example", "null", "http://falconframework.org:81",
           "file://", "http://[", "", "ftp://falconframework.org"]  # fmt: skip


@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("is_open", [True, False])
def test_foreign_origin_is_refused(site: Site, open_site: Site, origin: str, method: str, *, is_open: bool) -> None:
    asked, headers = (open_site, {}) if is_open else (site, site.shown["admin"])
    assert asked.status(method, "/api/tasks", Origin=origin, **headers) == 403


@pytest.mark.parametrize("origin", [f"http://{TEST_HOST}", f"http://{TEST_HOST.upper()}", f"http://{TEST_HOST}:80"])
def test_own_origin_is_allowed(open_site: Site, origin: str) -> None:
    assert open_site.status("POST", "/api/tasks", Origin=origin) == 200


def test_origin_with_another_port_is_foreign(open_site: Site) -> None:
    assert open_site.status("GET", "/workers", Host="localhost:8080", Origin="http://localhost:8080") == 200
    assert open_site.status("GET", "/workers", Host="localhost:8080", Origin="http://localhost:3000") == 403


@pytest.mark.parametrize("site_said", ["cross-site", "same-site"])
def test_sec_fetch_site_is_checked(open_site: Site, site_said: str) -> None:
    said = {"Sec_Fetch_Site": site_said}
    assert open_site.status("GET", "/telemetry", **said, Sec_Fetch_Mode="no-cors") == 403
    assert open_site.status("POST", "/api/workers/{worker_id}/undrain", **said, Sec_Fetch_Mode="navigate") == 403
    assert open_site.status("GET", "/", **said, Sec_Fetch_Mode="navigate") == 200


FOREIGN_HOSTS = [
    *("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "0x7f.1"),
    *("localhost:evil.example", "localhost:", ":", "[::1]:", "[::1]:x", "127.0.0.1:\xb2", "["),
]


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_foreign_host_is_refused_while_no_token_exists(open_site: Site, host: str) -> None:
    assert open_site.status("GET", "/telemetry", Host=host) == 421


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8080", "localhost.", "a.localhost", "127.0.0.1:8080", "[::1]:8080", "10.1.2.3", TEST_HOST],
)
def test_own_host_names_and_addresses_are_allowed(open_site: Site, host: str) -> None:
    assert open_site.status("GET", "/telemetry", Host=host) == 200


def test_host_is_not_checked_once_a_token_exists(site: Site) -> None:
    assert site.status("GET", "/telemetry", Host="fleet.example", **site.shown["read"]) == 200
