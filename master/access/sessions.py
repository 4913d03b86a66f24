"""Sessions of the page: a browser shows a token once, and a cookie from then on."""

import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

from fleetpulse.master.access.book import TokenStore
from fleetpulse.master.access.identity import Identity

LIFETIME_SECONDS = 12 * 3600.0
MOST = 1000
MOST_OF_A_TOKEN = 20
"""Sessions at a time; a new one ends the oldest, of its own token if that has many."""

DOOR = "session"


class _Session(NamedTuple):
    secret: str
    ends: float


class Sessions:
    """Those of one master, in its memory: they end with it, with their token, and after ``LIFETIME_SECONDS``."""

    def __init__(self, book: TokenStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._book, self._clock = book, clock
        self._sessions: dict[str, _Session] = {}

    def begin(self, secret: str) -> tuple[str, Identity] | None:
        """A new session and who it is of; ``None`` for a token that is not good."""
        identity = self._book.identify(secret)
        if identity is None:
            return None
        own = [session_id for session_id, session in self._sessions.items() if session.secret == secret]
        if len(own) >= MOST_OF_A_TOKEN:
            del self._sessions[own[0]]
        elif len(self._sessions) >= MOST:
            del self._sessions[next(iter(self._sessions))]
        session_id = secrets.token_urlsafe(32)
        self._sessions[session_id] = _Session(secret, self._clock() + LIFETIME_SECONDS)
        return session_id, identity._replace(door=DOOR)

    def identity(self, session_id: str) -> Identity | None:
        """Whose session it is; ``None``: it is over, or never was."""
        session = self._sessions.get(session_id)
        if session is None:
            return None
        identity = self._book.identify(session.secret) if self._clock() < session.ends else None
        if identity is None:
            del self._sessions[session_id]
            return None
        return identity._replace(door=DOOR)

    def end(self, session_id: str) -> None:
        """Forget it."""
        self._sessions.pop(session_id, None)
