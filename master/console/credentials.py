"""Which token a command shows."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import click
import platformdirs

from fleetpulse.master.access.store import find_owner_secret
from fleetpulse.master.console.listener import users_listening

Token = Callable[[], str | None]
"""Asked before each request."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PORT_BY_SCHEME = {"http": 80, "https": 443}
_ROOT = 0


def no_token() -> None:
    """For a master that wants none."""


def token_for(
    url: str,
    given: str | None,
    environment: Mapping[str, str] = os.environ,
    users_listening: Callable[[int], frozenset[int]] = users_listening,
) -> Token:
    """The one given; else that in ``FLEETPULSE_TOKEN_FILE``; else, for a master on this machine, its owner's.

    Raises ``click.UsageError`` for a file that cannot be read.
    """
    if given:
        return given.strip
    if named := environment.get("FLEETPULSE_TOKEN_FILE"):
        try:
            return Path(named).read_text(encoding="ascii").strip
        except (OSError, UnicodeDecodeError) as error:
            raise click.UsageError(f"FLEETPULSE_TOKEN_FILE={named}: {getattr(error, 'strerror', error)}") from error
    parts = urlsplit(url)
    if parts.hostname not in LOOPBACK:
        return no_token
    port = parts.port or _PORT_BY_SCHEME[parts.scheme]
    folder = Path(environment.get("FLEETPULSE_DATA_DIR") or platformdirs.user_state_path("fleetpulse"))
    # While the master is down, any user of the machine could listen in its place.
    return lambda: find_owner_secret(folder) if users_listening(port) <= {_ROOT, os.geteuid()} else None
