"""The worker's certificate: how it gets one, keeps it, and renews it while it runs.

What is here costs nothing to import; the rest loads ``cryptography``, for workers with a certificate.
"""

from typing import NamedTuple

BUNDLE_NAME = "tls.pem"
"""In the worker's data directory."""


class CredentialsError(Exception):
    """The worker's certificate cannot be had or used. The message is one line for people."""


class JoinEndpoint(NamedTuple):
    """The join port of a master."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
