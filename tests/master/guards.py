"""Guards for an app that is asked without a network."""

from pathlib import Path

from fleetpulse.master.access.store import SessionStore, TokenFile, TokenStore
from fleetpulse.master.api.access import AccessMiddleware
from fleetpulse.master.api.routes import ROUTES
from fleetpulse.master.app import Access

ASKED_FOR = "falconframework.org"
"""The host that Falcon's test client asks for."""


def open_access() -> Access:
    """That of a master that nobody has made a token for."""
    return access_of(TokenStore(TokenFile(Path("/nowhere/tokens.json"))))


def access_of(tokens: TokenStore) -> Access:
    """That of a master with these tokens."""
    sessions = SessionStore(tokens)
    return Access(AccessMiddleware(tokens, sessions, ROUTES, [ASKED_FOR]), sessions)
