"""Which token a command shows."""

import os
from pathlib import Path
from urllib.parse import urlsplit

import click
import platformdirs

from master.access.owner import find_owner_secret

_HERE = {"localhost", "127.0.0.1", "::1"}


def token_for(url: str, given: str | None) -> str | None:
    """The one given; else that in ``FLEETPULSE_TOKEN_FILE``; else, for a master on this machine, its owner's.

    Raises ``click.UsageError`` for a file that cannot be read.
    """
    if given:
        return given.strip()
    named = os.environ.get("FLEETPULSE_TOKEN_FILE")
    if named:
        try:
            return Path(named).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise click.UsageError(f"FLEETPULSE_TOKEN_FILE={named}: {getattr(error, 'strerror', error)}") from error
    if urlsplit(url).hostname not in _HERE:
        return None
    data_dir = os.environ.get("FLEETPULSE_DATA_DIR")
    return find_owner_secret(Path(data_dir) if data_dir else platformdirs.user_state_path("fleetpulse"))
