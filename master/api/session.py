"""``/api/session``: who asks, and how the page signs in and out."""

import falcon
import orjson
from pydantic import BaseModel, ConfigDict

from fleetpulse.master.access.sessions import LIFETIME_SECONDS, Sessions
from fleetpulse.master.access.tokens import Identity
from fleetpulse.master.api.body import BodyReader
from fleetpulse.master.api.guard import SESSION_COOKIE, unauthorized
from fleetpulse.master.api.invalid import validated
from fleetpulse.master.api.queries import NoQuery, query_of


class SignIn(BaseModel):
    """The body of ``POST /api/session``."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)

    token: str
    """As `fleetpulse token create` showed it."""


class SessionResource:
    """The resource. What it says is for one asker alone."""

    def __init__(self, sessions: Sessions, body: BodyReader) -> None:
        self._sessions, self._body = sessions, body

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        identity: Identity | None = req.context.identity
        if identity is None:
            raise unauthorized("sign in with a token; `fleetpulse token create` makes one")
        _answer(resp, identity)

    on_head = on_get

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        query_of(req, NoQuery)
        begun = self._sessions.begin(validated(SignIn, self._body.json(req)).token.strip())
        if begun is None:
            raise unauthorized("this token is unknown, expired or revoked")
        session_id, identity = begun
        req.context.identity = identity
        resp.set_cookie(
            SESSION_COOKIE, session_id, max_age=int(LIFETIME_SECONDS), path="/", same_site="Strict", http_only=True,
            secure=_is_under_tls(req),
        )  # fmt: skip
        _answer(resp, identity)

    def on_delete(self, req: falcon.Request, resp: falcon.Response) -> None:
        self._sessions.end(req.cookies.get(SESSION_COOKIE, ""))
        resp.unset_cookie(SESSION_COOKIE, path="/", same_site="Strict")
        resp.status = falcon.HTTP_204


def _is_under_tls(req: falcon.Request) -> bool:
    """Whether the browser speaks TLS, be it with a proxy. Its page says so in ``Origin``, which the guard checked."""
    return req.scheme == "https" or (req.get_header("Origin") or "").startswith("https://")


def _answer(resp: falcon.Response, identity: Identity) -> None:
    resp.content_type = falcon.MEDIA_JSON
    resp.cache_control = ("no-store",)
    resp.data = orjson.dumps({"name": identity.name, "role": identity.role.name.lower(), "door": identity.door})
