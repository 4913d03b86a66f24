"""The worker's certificate: how the worker gets, stores and renews it.

Importing this costs nothing; the modules in it load ``cryptography``, for workers with a certificate.
"""

from typing import NamedTuple

BUNDLE_NAME = "tls.pem"
"""In the worker's data directory."""


class CredentialsError(Exception):
    """The worker's certificate is missing or cannot be used. The message is one line for the operator."""


class JoinEndpoint(NamedTuple):
    """The join port of a master."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
