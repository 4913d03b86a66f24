"""Where the master is and which token a command sends: ``--url``, ``FLEETPULSE_TOKEN`` and the owner's token."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import click
import platformdirs

from fleetpulse.master.access.store import find_owner_secret

TokenSource = Callable[[], str | None]
"""Called before each request."""

DEFAULT_URL = "http://localhost:8080"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_DEFAULT_PORT = 8080
_PORT_BY_SCHEME = {"http": 80, "https": 443}
_ROOT = 0
_SOCKET_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENING = "0A"


def base_url(given: str) -> str:
    """Completes ``http://host:8080``, ``host:8080``, ``:8080`` or ``host``. No slash at the end.

    Raises ``click.UsageError``.
    """
    given = given.strip()
    if given.startswith(":"):
        given = f"localhost{given}"
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


def users_listening(port: int, tables: Sequence[Path] = _SOCKET_TABLES) -> frozenset[int]:
    """The user ids that listen on this TCP port of this machine. Empty where the system does not tell."""
    return frozenset(user for table in tables for user in _users_in(table, port))


def _users_in(table: Path, port: int) -> Iterator[int]:
    try:
        _, *sockets = table.read_text(encoding="ascii").splitlines()
    except OSError:
        return
    for socket in sockets:
        _, address, _, state, _, _, _, user, *_ = socket.split()
        if state == _LISTENING and int(address.rpartition(":")[2], 16) == port:
            yield int(user)


def token_source(
    url: str,
    given: str | None,
    environment: Mapping[str, str] = os.environ,
    users_listening: Callable[[int], frozenset[int]] = users_listening,
) -> TokenSource:
    """The token given, else the one in ``FLEETPULSE_TOKEN_FILE``, else the owner's for a master on this machine.

    Raises ``click.UsageError`` for a file that cannot be read.
    """
    if given:
        return given.strip
    if file := environment.get("FLEETPULSE_TOKEN_FILE"):
        try:
            return Path(file).read_text(encoding="ascii").strip
        except (OSError, UnicodeDecodeError) as error:
            raise click.UsageError(f"FLEETPULSE_TOKEN_FILE={file}: {getattr(error, 'strerror', error)}") from error
    parts = urlsplit(url)
    if parts.hostname not in LOOPBACK:
        return lambda: None
    port = parts.port or _PORT_BY_SCHEME[parts.scheme]
    data_dir = Path(environment.get("FLEETPULSE_DATA_DIR") or platformdirs.user_state_path("fleetpulse"))
    # While the master is down, any user of this machine could listen in its place.
    return lambda: find_owner_secret(data_dir) if users_listening(port) <= {_ROOT, os.geteuid()} else None
