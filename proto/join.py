"""The join token and the worker's name in a certificate, which master and worker must agree on. Pure."""

import base64
import binascii
import secrets
from typing import NamedTuple

from fleetpulse.proto.rules import is_worker_id

MAX_CSR_BYTES = 4096

_PREFIX = "fpj1_"
_FINGERPRINT_BYTES = 32
_SECRET_BYTES = 24
_URI = "fleetpulse://worker/"


class JoinToken(NamedTuple):
    """Lets a new machine and its master trust each other. Neither ``str`` nor ``repr`` shows the secret.

    ``fingerprint`` is the SHA-256 of the CA's certificate in DER.
    """

    fingerprint: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"JoinToken({self.fingerprint.hex()[:16]}..., secret)"

    def text(self) -> str:
        """The token as one word, which ``parse_join_token`` reads."""
        return _PREFIX + base64.urlsafe_b64encode(self.fingerprint + self.secret).decode().rstrip("=")


def new_join_token(fingerprint: bytes) -> JoinToken:
    """With a new random secret."""
    return JoinToken(fingerprint, secrets.token_bytes(_SECRET_BYTES))


def parse_join_token(text: str) -> JoinToken:
    """Raises ``ValueError``, which does not show the text."""
    word = text.strip()
    encoded = word.removeprefix(_PREFIX)
    try:
        data = base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", True)
    except (ValueError, binascii.Error):
        data = b""
    if not word.startswith(_PREFIX) or len(data) != _FINGERPRINT_BYTES + _SECRET_BYTES:
        raise ValueError(f"this is no join token: one begins with {_PREFIX} and comes from `fleetpulse ca join-token`")
    return JoinToken(data[:_FINGERPRINT_BYTES], data[_FINGERPRINT_BYTES:])


def worker_uri(worker_id: str) -> str:
    """The subject alternative name of a worker's certificate."""
    return _URI + worker_id


def worker_id_of(uri: str) -> str | None:
    """The worker id in such a URI; ``None`` for any other URI."""
    worker_id = uri.removeprefix(_URI)
    return worker_id if uri.startswith(_URI) and is_worker_id(worker_id) else None
