"""Authentication and authorisation: whose a request is, and whether the table of routes lets them do it.

``/api/session`` answers whose the request is, and signs the page in and out.
"""

import base64
import ipaddress
import re
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, Literal
from urllib.parse import urlsplit

import falcon

from fleetpulse.master.access.store import SESSION_LIFETIME_SECONDS, SessionStore, TokenStore
from fleetpulse.master.access.tokens import ANYBODY, Identity, Role
from fleetpulse.master.api.answers import ResponseModel, send_json
from fleetpulse.master.api.operations import Route
from fleetpulse.master.api.queries import NoQuery
from fleetpulse.master.api.validation import ClientConnection, RequestBody, query_of, read_open_json, validated

STRANGER = (
    "while it has no token, this master serves only its own user and root: ask them for a token "
    "(`fleetpulse token create NAME`), or for --any-local-user"
)
"""What other users of the machine are told."""

TASKS_STRANGER = (
    "this comes from the network of this machine's tasks, which is never trusted: "
    "`fleetpulse token create NAME` makes a token"
)
"""What a task is told where the network is trusted."""

CHALLENGE = 'Bearer realm="FleetPulse"'
SESSION_COOKIE = "fleetpulse_session"

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_BASIC_ROLE = Role.READ
"""The most that a password gives: a browser sends one by itself, with whatever a foreign page requests."""

_DEFAULT_PORTS = {"http": 80, "https": 443}


class SignIn(RequestBody):
    """The body of ``POST /api/session``."""

    token: str
    """As `fleetpulse token create` showed it."""


class SessionInfo(ResponseModel):
    """Whose the request is, and what they may do."""

    name: str
    role: Literal["read", "submit", "admin"]
    auth_method: Literal["token", "session", "loopback"]
    """`loopback`: the master's own user or root on its machine, because no token was made yet."""


class AccessMiddleware:
    """Refuses what foreign pages make browsers send, and what the role of the request's identity does not allow.

    ``names`` are the host names that the master goes by, beside ``localhost`` and every IP address. ``is_own_user``
    says whether a request needs no token while none exists; ``stranger`` is what others are told then.
    """

    def __init__(
        self,
        tokens: TokenStore,
        sessions: SessionStore,
        routes: Sequence[Route],
        names: Collection[str] = (),
        is_own_user: Callable[[falcon.Request], bool] = lambda _req: True,
        stranger: str = STRANGER,
    ) -> None:
        self._stranger = stranger
        self._tokens = tokens
        self._is_own_user = is_own_user
        self._names = frozenset(name.lower().rstrip(".") for name in names)
        self._sessions = sessions
        self._roles: dict[tuple[str, str], Role] = {
            (route.path, operation.method): operation.role for route in routes for operation in route.operations
        }

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        """Sets ``req.context.identity``. Runs before the route is known."""
        req.context.identity = None
        self._refuse_foreign_pages(req)
        req.context.identity = identity = self._identify(req)
        if identity is None and req.auth:
            raise unauthorized("this token is unknown, expired or revoked")

    def process_resource(self, req: falcon.Request, _resp: falcon.Response, _resource: Any, _params: Any) -> None:
        """Checks the role. Runs when the route is known.

        Sets ``req.context.is_still_allowed``, which an answer without an end calls with the request now and then.
        """
        method = "GET" if req.method == "HEAD" else req.method
        required = self._roles.get((req.uri_template or "", method), Role.READ)
        identity: Identity | None = req.context.identity
        if required is Role.OPEN:
            return
        if identity is None:
            raise unauthorized(
                "a token is wanted here; `fleetpulse token create` makes one"
                if self._tokens.auth_required
                else self._stranger
            )
        if identity.role < required:
            raise falcon.HTTPForbidden(
                description=f"this takes the role {required.name.lower()}, and {identity.name} has "
                f"{identity.role.name.lower()}"
            )
        req.context.is_still_allowed = partial(self._has_role, required)

    def _refuse_foreign_pages(self, req: falcon.Request) -> None:
        """A page of another site can make a browser on this machine send requests, but cannot hide that it does."""
        if not self._tokens.auth_required and not self._is_own_name(req):
            # A foreign name that leads here: the browser takes the master for that site's.
            raise falcon.HTTPError(
                falcon.HTTP_421,
                description="this master does not go by that name; --allowed-host tells it another one",
            )
        origin = req.get_header("Origin")
        is_foreign = origin is not None and not _is_same_origin(origin, req)
        site = req.get_header("Sec-Fetch-Site")
        if site in {"cross-site", "same-site"}:
            is_link = req.get_header("Sec-Fetch-Mode") == "navigate" and req.method in _SAFE_METHODS
            is_foreign = is_foreign or not is_link
        if is_foreign:
            raise falcon.HTTPForbidden(description="a page of another site asks this; the master serves only its own")

    def _has_role(self, required: Role, req: falcon.Request) -> bool:
        identity = self._identify(req)
        return identity is not None and identity.role >= required

    def _identify(self, req: falcon.Request) -> Identity | None:
        """Returns the identity behind a request's credentials, as of now; ``None`` when there is none."""
        if req.auth:
            secret = _secret_in(req.auth)
            identity = None if secret is None else self._tokens.identify(secret)
            if identity is not None and req.auth[:6].lower() == "basic ":
                return identity._replace(role=min(identity.role, _BASIC_ROLE))
            return identity
        if not self._tokens.auth_required and self._is_own_user(req):
            return ANYBODY
        cookie = req.cookies.get(SESSION_COOKIE)
        if cookie is None:
            return None
        if req.method not in _SAFE_METHODS and req.get_header("Origin") is None:
            raise falcon.HTTPForbidden(description="a page's request must say its Origin; a program sends a token")
        return self._sessions.identity(cookie)

    def _is_own_name(self, req: falcon.Request) -> bool:
        try:
            name = req.host.lower().rstrip(".")
        except ValueError:  # the port is malformed
            return False
        if name == "localhost" or name.endswith(".localhost") or name in self._names:
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True


def is_own_user(req: falcon.Request) -> bool:
    """Returns whether the request's connection is one of the master's own user or root, as the system says."""
    connection: ClientConnection = req.env["gunicorn.socket"]
    return connection.is_own_user()


class SessionResource:
    """``/api/session``."""

    def __init__(self, sessions: SessionStore) -> None:
        self._sessions = sessions

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        identity: Identity | None = req.context.identity
        if identity is None:
            raise unauthorized("sign in with a token; `fleetpulse token create` makes one")
        _send_info(resp, identity)

    on_head = on_get

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        query_of(req, NoQuery)
        session = self._sessions.begin(validated(SignIn, read_open_json(req)).token.strip())
        if session is None:
            raise unauthorized("this token is unknown, expired or revoked")
        session_id, identity = session
        req.context.identity = identity
        # Behind a proxy that ends TLS only the page's Origin, which the middleware has checked, says that it is TLS.
        is_tls = req.scheme == "https" or (req.get_header("Origin") or "").startswith("https://")
        resp.set_cookie(
            SESSION_COOKIE, session_id, max_age=int(SESSION_LIFETIME_SECONDS), path="/", same_site="Strict",
            http_only=True, secure=is_tls,
        )  # fmt: skip
        _send_info(resp, identity)

    def on_delete(self, req: falcon.Request, resp: falcon.Response) -> None:
        self._sessions.end(req.cookies.get(SESSION_COOKIE, ""))
        resp.unset_cookie(SESSION_COOKIE, path="/", same_site="Strict")
        resp.status = falcon.HTTP_204


def unauthorized(detail: str) -> falcon.HTTPUnauthorized:
    """Returns a 401 that asks for a token."""
    return falcon.HTTPUnauthorized(description=detail, challenges=[CHALLENGE])


def _send_info(resp: falcon.Response, identity: Identity) -> None:
    role: Any = identity.role.name.lower()
    method: Any = identity.auth_method
    send_json(resp, SessionInfo(identity.name, role, method), cache_control="no-store")


def _secret_in(header: str) -> str | None:
    """Returns the bearer token; of Basic, the password."""
    scheme, _, given = header.strip().partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()
    if scheme.lower() == "basic" and re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", given.strip()):
        try:
            decoded = base64.b64decode(given.strip(), validate=True).decode()
        except ValueError:
            return None
        return decoded.partition(":")[2]
    return None


def _is_same_origin(origin: str, req: falcon.Request) -> bool:
    """Whether an ``Origin`` is that of the address that was asked."""
    try:
        host = urlsplit(f"//{req.get_header('Host') or ''}")
        page = urlsplit(origin)
        return page.scheme in _DEFAULT_PORTS and (page.hostname, page.port or _DEFAULT_PORTS[page.scheme]) == (
            host.hostname,
            host.port or _DEFAULT_PORTS[page.scheme],
        )
    except ValueError:
        return False
