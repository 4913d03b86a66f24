"""Guards for an app that is asked without a network."""

from pathlib import Path

from master.access.book import TokenBook
from master.access.token_file import TokenFile
from master.api.guard import Guard
from master.api.routes import ROUTES

ASKED_FOR = "falconframework.org"
"""The host that Falcon's test client asks for."""


def open_guard() -> Guard:
    """One of a master that nobody has made a token for."""
    return Guard(TokenBook(TokenFile(Path("/nowhere/tokens.json"))), ROUTES, [ASKED_FOR])
