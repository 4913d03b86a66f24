"""What is secret in the database: values of environments, sealed; and digests of requests, keyed.

The names in an environment stay readable, because answers show them. A request's digest is keyed because the secret is
part of the request: with a plain digest somebody who has the file could try what they think it is.
"""

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

KEYED = "hmac:"
"""Stands before a digest that is keyed."""

_PURPOSE = b"fleetpulse: digests of requests"
_KEY_BYTES = 32


class DecryptionFailed(Exception):
    """It was sealed with another key, or changed."""


class Encryptor:
    """From any thread. The first key seals; all of them open, so that a key can be replaced."""

    def __init__(self, keys: Sequence[str]) -> None:
        """Raises ``ValueError`` unless each is 32 bytes in URL-safe base64, as ``new_key`` makes them."""
        decoded = [base64.urlsafe_b64decode(key) for key in keys]
        if any(len(key) != _KEY_BYTES for key in decoded):
            raise ValueError("not a key of 32 bytes")
        self._keys = keys
        self._digest_keys = [hmac.digest(key, _PURPOSE, "sha256") for key in decoded]

    def __repr__(self) -> str:
        return "Encryptor(***)"

    def seal(self, env: Mapping[str, str]) -> str:
        """Empty for nothing."""
        return self._fernet.encrypt(json.dumps(dict(env)).encode()).decode() if env else ""

    def open(self, sealed: str) -> dict[str, str]:
        """Raises ``DecryptionFailed``."""
        if not sealed:
            return {}
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 - heavy, and not needed where no task has secrets

        try:
            env: dict[str, str] = json.loads(self._fernet.decrypt(sealed))
        except InvalidToken as error:
            raise DecryptionFailed("the values were sealed with a key that is not there") from error
        return env

    def digest(self, digest: str) -> str:
        """Of a request, as it is stored."""
        return self._keyed(self._digest_keys[0], digest)

    def is_digest(self, stored: str, digest: str) -> bool:
        """Whether what is stored stands for the request with this digest."""
        return any(hmac.compare_digest(stored, self._keyed(key, digest)) for key in self._digest_keys)

    @cached_property
    def _fernet(self) -> "MultiFernet":
        from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415 - see above

        return MultiFernet([Fernet(key) for key in self._keys])

    @staticmethod
    def _keyed(key: bytes, digest: str) -> str:
        return KEYED + hmac.new(key, digest.encode(), hashlib.sha256).hexdigest()


def new_key() -> str:
    """For ``Encryptor``."""
    return base64.urlsafe_b64encode(secrets.token_bytes(_KEY_BYTES)).decode()
