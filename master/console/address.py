"""Where the master is, as people write it: ``http://host:8080``, ``host:8080``, ``:8080`` or ``host``."""

import re
from urllib.parse import urlsplit

import click

DEFAULT_URL = "http://localhost:8080"
_DEFAULT_PORT = 8080


def base_url(text: str) -> str:
    """The URL of the master, without a slash at its end. Raises ``click.UsageError``."""
    text = text.strip()
    if text.startswith(":"):
        text = f"localhost{text}"
    has_scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None
    url = text if has_scheme else f"http://{text}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _wrong(text) from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not text.isprintable() or " " in text:
        raise _wrong(text)
    if parts.query or parts.fragment:
        raise _wrong(text)
    if port is None and not has_scheme:
        url = f"{url.rstrip('/')}:{_DEFAULT_PORT}"
    return url.rstrip("/")


def _wrong(text: str) -> click.UsageError:
    return click.UsageError(f"--url (FLEETPULSE_URL) must look like {DEFAULT_URL}, not {text!r}")
