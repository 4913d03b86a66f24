"""What master and worker agree on about joining: the join token, and the name that a certificate carries. Pure."""

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
    """What a machine needs in order to trust the master, and to be trusted, before it has anything.

    ``fingerprint`` is the SHA-256 of the CA's certificate in DER. Neither ``str`` nor ``repr`` shows the secret.
    """

    fingerprint: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"JoinToken({self.fingerprint.hex()[:16]}..., secret)"

    def text(self) -> str:
        """As people hand it on: one word."""
        return _PREFIX + base64.urlsafe_b64encode(self.fingerprint + self.secret).decode().rstrip("=")


def new_join_token(fingerprint: bytes) -> JoinToken:
    """With a secret that nobody can guess."""
    return JoinToken(fingerprint, secrets.token_bytes(_SECRET_BYTES))


def parse_join_token(text: str) -> JoinToken:
    """Raises ``ValueError``, which does not repeat the text."""
    word = text.strip()
    try:
        data = base64.b64decode(word.removeprefix(_PREFIX) + "=" * (-len(word.removeprefix(_PREFIX)) % 4), b"-_", True)
    except (ValueError, binascii.Error):
        data = b""
    if not word.startswith(_PREFIX) or len(data) != _FINGERPRINT_BYTES + _SECRET_BYTES:
        raise ValueError(f"this is no join token: one begins with {_PREFIX} and comes from `fleetpulse ca join-token`")
    return JoinToken(data[:_FINGERPRINT_BYTES], data[_FINGERPRINT_BYTES:])


def worker_uri(worker_id: str) -> str:
    """The subject alternative name of a worker's certificate."""
    return _URI + worker_id


def worker_id_of(uri: str) -> str | None:
    """The other way round; ``None`` for any other URI."""
    worker_id = uri.removeprefix(_URI)
    return worker_id if uri.startswith(_URI) and is_worker_id(worker_id) else None
