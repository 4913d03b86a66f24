"""Sessions of the page: a browser shows a token once, and a cookie from then on."""

import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

from fleetpulse.master.access.store import TokenStore
from fleetpulse.master.access.tokens import Identity

LIFETIME_SECONDS = 12 * 3600.0
MAX_SESSIONS = 1000
MAX_SESSIONS_PER_TOKEN = 20
"""A new session ends the oldest: of the same token if that has so many, of all otherwise."""

_AUTH_METHOD = "session"


class _Session(NamedTuple):
    secret: str
    expires_at: float


class SessionStore:
    """Kept in memory: sessions end with the master, with their token, and after ``LIFETIME_SECONDS``."""

    def __init__(self, store: TokenStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._sessions: dict[str, _Session] = {}

    def begin(self, secret: str) -> tuple[str, Identity] | None:
        """Returns the id and the holder of a new session; ``None`` for a token that is not accepted."""
        identity = self._store.identify(secret)
        if identity is None:
            return None
        same_token = [session_id for session_id, session in self._sessions.items() if session.secret == secret]
        if len(same_token) >= MAX_SESSIONS_PER_TOKEN:
            del self._sessions[same_token[0]]
        elif len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        session_id = secrets.token_urlsafe(32)
        self._sessions[session_id] = _Session(secret, self._clock() + LIFETIME_SECONDS)
        return session_id, identity._replace(auth_method=_AUTH_METHOD)

    def identity(self, session_id: str) -> Identity | None:
        """Returns the holder of a session; ``None`` for one that has ended or never began."""
        session = self._sessions.get(session_id)
        if session is None:
            return None
        identity = self._store.identify(session.secret) if self._clock() < session.expires_at else None
        if identity is None:
            del self._sessions[session_id]
            return None
        return identity._replace(auth_method=_AUTH_METHOD)

    def end(self, session_id: str) -> None:
        """Ends a session; does nothing for an unknown one."""
        self._sessions.pop(session_id, None)
