"""Who may ask what: every request says who asks, and may do what the table of routes says."""

import base64
import ipaddress
import re
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import falcon

from fleetpulse.master.access.sessions import Sessions
from fleetpulse.master.access.store import TokenStore
from fleetpulse.master.access.tokens import ANYBODY, Identity, Role
from fleetpulse.master.api.operations import Route

CHALLENGE = 'Bearer realm="FleetPulse"'
SESSION_COOKIE = "fleetpulse_session"

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_BASIC_ROLE = Role.READ
"""What a password may do at most: a browser sends one without being told to, with whatever a foreign page asks."""

_Asking = Callable[[], Identity | None]
"""Whose it is, now, what a request has shown; ``None``: nobody's, or not any more."""


class AccessMiddleware:
    """Refuses what browsers are made to send by foreign pages, and what the asker may not do.

    ``names`` are the host names that the master goes by, beside ``localhost`` and every IP address.
    """

    def __init__(
        self, book: TokenStore, sessions: Sessions, routes: Sequence[Route], names: Collection[str] = ()
    ) -> None:
        self._book = book
        self._names = frozenset(name.lower().rstrip(".") for name in names)
        self._sessions = sessions
        self._roles: dict[tuple[str, str], Role] = {
            (route.path, operation.method): operation.role for route in routes for operation in route.operations
        }

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        """Before the route is known: where the request comes from, and who asks."""
        req.context.identity = None
        self._refuse_foreign_pages(req)
        req.context.asking = asking = self._asking(req)
        req.context.identity = identity = asking()
        if identity is None and req.auth:
            raise unauthorized("this token is unknown, expired or revoked")

    def process_resource(self, req: falcon.Request, _resp: falcon.Response, _resource: Any, _params: Any) -> None:
        """Where the route is known: whether this one may ask it, and by what that is found out again.

        An answer without an end asks ``req.context.is_still_allowed`` now and then.
        """
        wanted = self._roles.get((req.uri_template or "", _as_written(req.method)), Role.READ)
        identity: Identity | None = req.context.identity
        if wanted is Role.OPEN:
            return
        if identity is None:
            raise unauthorized("a token is wanted here; `fleetpulse token create` makes one")
        if identity.role < wanted:
            raise falcon.HTTPForbidden(
                description=f"this takes the role {wanted.name.lower()}, and {identity.name} has "
                f"{identity.role.name.lower()}"
            )
        req.context.is_still_allowed = partial(_has_role, req.context.asking, wanted)

    def _refuse_foreign_pages(self, req: falcon.Request) -> None:
        """A page of another site may make a browser on this machine ask; what it can not do is to hide it."""
        if not self._book.auth_required and not self._is_ours(req):
            # A foreign name that leads here: the browser takes the master for that site's.
            raise falcon.HTTPError(
                falcon.HTTP_421,
                description="this master does not go by that name; --allowed-host tells it another one",
            )
        origin = req.get_header("Origin")
        is_foreign = origin is not None and not _is_same(origin, req)
        site = req.get_header("Sec-Fetch-Site")
        if site in {"cross-site", "same-site"}:
            is_link = req.get_header("Sec-Fetch-Mode") == "navigate" and req.method in _SAFE_METHODS
            is_foreign = is_foreign or not is_link
        if is_foreign:
            raise falcon.HTTPForbidden(description="a page of another site asks this; the master serves only its own")

    def _asking(self, req: falcon.Request) -> _Asking:
        header = req.auth
        if header:
            secret = _secret_in(header)
            if secret is None:
                return _nobody
            return partial(self._of_password if header[:6].lower() == "basic " else self._book.identify, secret)
        if not self._book.auth_required:
            return self._anybody
        cookie = req.cookies.get(SESSION_COOKIE)
        if cookie is None:
            return _nobody
        if req.method not in _SAFE_METHODS and req.get_header("Origin") is None:
            raise falcon.HTTPForbidden(description="a page's request must say its Origin; a program sends a token")
        return partial(self._sessions.identity, cookie)

    def _of_password(self, secret: str) -> Identity | None:
        identity = self._book.identify(secret)
        return None if identity is None else identity._replace(role=min(identity.role, _BASIC_ROLE))

    def _anybody(self) -> Identity | None:
        return None if self._book.auth_required else ANYBODY

    def _is_ours(self, req: falcon.Request) -> bool:
        try:
            name = req.host.lower().rstrip(".")
        except ValueError:  # what it says after the colon is no port
            return False
        if name == "localhost" or name.endswith(".localhost") or name in self._names:
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True


def unauthorized(text: str) -> falcon.HTTPUnauthorized:
    """Who asks is not known."""
    return falcon.HTTPUnauthorized(description=text, challenges=[CHALLENGE])


def _nobody() -> Identity | None:
    return None


def _has_role(asking: _Asking, wanted: Role) -> bool:
    identity = asking()
    return identity is not None and identity.role >= wanted


def _as_written(method: str) -> str:
    return "GET" if method == "HEAD" else method


def _secret_in(header: str) -> str | None:
    """What a bearer shows; of Basic, the password."""
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


def _is_same(origin: str, req: falcon.Request) -> bool:
    """Whether an ``Origin`` is that of the address that was asked."""
    try:
        asked = urlsplit(f"//{req.get_header('Host') or ''}")
        from_ = urlsplit(origin)
        return from_.scheme in {"http", "https"} and (from_.hostname, from_.port or _PORTS[from_.scheme]) == (
            asked.hostname,
            asked.port or _PORTS[from_.scheme],
        )
    except ValueError:
        return False


_PORTS = {"http": 80, "https": 443}
