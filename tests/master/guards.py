"""Access middleware for apps under Falcon's test client."""

from pathlib import Path

from fleetpulse.master.access.store import SessionStore, TokenFile, TokenStore
from fleetpulse.master.api.access import AccessMiddleware
from fleetpulse.master.api.routes import ROUTES
from fleetpulse.master.app import Access

TEST_HOST = "falconframework.org"
"""The ``Host`` of Falcon's test client."""


def open_access() -> Access:
    """The access of a master without tokens."""
    return access_of(TokenStore(TokenFile(Path("/nowhere/tokens.json"))))


def access_of(tokens: TokenStore) -> Access:
    """The access of a master with these tokens."""
    sessions = SessionStore(tokens)
    return Access(AccessMiddleware(tokens, sessions, ROUTES, [TEST_HOST]), sessions)
