"""Where the master is and which token a command sends: ``--url``, ``FLEETPULSE_TOKEN`` and the owner's token."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import click
import platformdirs

from fleetpulse.master.access.store import find_owner_secret
from fleetpulse.master.console.errors import ConsoleError
from fleetpulse.proto.listeners import (
    MASTER_USER,
    ForeignListener,
    UsersListening,
    check_listener,
    is_loopback,
    users_listening,
)

TokenSource = Callable[[], str | None]
"""Called before each request."""

DEFAULT_URL = "http://127.0.0.1:8080"
_DEFAULT_PORT = 8080
_PORT_BY_SCHEME = {"http": 80, "https": 443}


def base_url(given: str) -> str:
    """Completes ``http://host:8080``, ``host:8080``, ``:8080`` or ``host``. No slash at the end.

    Raises ``click.UsageError``.
    """
    given = given.strip()
    if given.startswith(":"):
        given = f"127.0.0.1{given}"
    has_scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", given) is not None
    url = given if has_scheme else f"http://{given}"
    error = click.UsageError(f"--url (FLEETPULSE_URL) must look like {DEFAULT_URL}, not {given!r}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise error from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not given.isprintable() or " " in given:
        raise error
    if parts.query or parts.fragment:
        raise error
    if port is None and not has_scheme:
        url = f"{url.rstrip('/')}:{_DEFAULT_PORT}"
    return url.rstrip("/")


def token_source(
    url: str,
    given: str | None,
    environment: Mapping[str, str] = os.environ,
    users_listening: UsersListening = users_listening,
) -> TokenSource:
    """The token given, else the one in ``FLEETPULSE_TOKEN_FILE``, else the owner's for a master on this machine.

    Where another user of this machine listens on the master's port, calling the source raises ``ConsoleError``, or
    gives no token if it would be the owner's: such a master may be open. Raises ``click.UsageError`` for a file that
    cannot be read.
    """
    parts = urlsplit(url)
    is_local = is_loopback(parts.hostname or "")
    port = parts.port or _PORT_BY_SCHEME[parts.scheme]
    master_user = environment.get(MASTER_USER, "")

    def checked(read: Callable[[], str]) -> TokenSource:
        def read_checked() -> str:
            try:
                check_listener(port, master_user, users_listening)
            except ForeignListener as error:
                raise ConsoleError(f"the token is not sent: {error}") from error
            return read()

        return read_checked if is_local else read

    if given:
        return checked(given.strip)
    if file := environment.get("FLEETPULSE_TOKEN_FILE"):
        try:
            return checked(Path(file).read_text(encoding="ascii").strip)
        except (OSError, UnicodeDecodeError) as error:
            raise click.UsageError(f"FLEETPULSE_TOKEN_FILE={file}: {getattr(error, 'strerror', error)}") from error
    if not is_local:
        return lambda: None
    data_dir = Path(environment.get("FLEETPULSE_DATA_DIR") or platformdirs.user_state_path("fleetpulse"))

    def owner_token() -> str | None:
        try:
            check_listener(port, master_user, users_listening)
        except ForeignListener:
            return None
        return find_owner_secret(data_dir)

    return owner_token
