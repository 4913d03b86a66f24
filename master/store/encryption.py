"""Encrypts the secrets in the database, and reads the file with the key.

Environments of tasks are encrypted; their names stay readable, because answers show them. Digests of requests are
keyed: a plain one would let somebody who has the database try out guesses of the secrets in the request.
"""

import base64
import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fleetpulse.master.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

KEY_NAME = "secret.key"
KEYED_PREFIX = "hmac:"
"""Stands before a keyed digest."""

_DIGEST_KEY_PURPOSE = b"fleetpulse: digests of requests"
_KEY_BYTES = 32
_MAX_FILE_BYTES = 64 * 1024
_HOW_TO_MAKE = "openssl rand -base64 32 | tr '+/' '-_' makes a key"  # as URL-safe base64, which Fernet wants


class DecryptionFailed(Exception):
    """The value was encrypted with another key, or changed."""


class Encryptor:
    """For any thread. The first key encrypts; all of them decrypt, so that a key can be replaced."""

    def __init__(self, keys: Sequence[str]) -> None:
        """Raises ``ValueError`` without keys, and unless each is 32 bytes in URL-safe base64, as from ``new_key``."""
        decoded = [base64.urlsafe_b64decode(key) for key in keys]
        if not decoded or any(len(key) != _KEY_BYTES for key in decoded):
            raise ValueError("expected keys of 32 bytes")
        self._keys = keys
        self._digest_keys = [hmac.digest(key, _DIGEST_KEY_PURPOSE, "sha256") for key in decoded]

    def __repr__(self) -> str:
        return "Encryptor(***)"

    def encrypt(self, env: Mapping[str, str]) -> str:
        """Returns an empty string for an empty environment."""
        return self._fernet.encrypt(json.dumps(dict(env)).encode()).decode() if env else ""

    def decrypt(self, encrypted: str) -> dict[str, str]:
        """Raises ``DecryptionFailed``."""
        if not encrypted:
            return {}
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 - heavy, and not needed where no task has secrets

        try:
            env: dict[str, str] = json.loads(self._fernet.decrypt(encrypted))
        except InvalidToken as error:
            raise DecryptionFailed("the values were encrypted with a key that is not there") from error
        return env

    def digest(self, digest: str) -> str:
        """Returns the keyed digest, as it is stored, of a request's plain digest."""
        return self._keyed(self._digest_keys[0], digest)

    def matches_digest(self, stored: str, digest: str) -> bool:
        """Whether ``stored`` is of the request with this plain digest, under any of the keys."""
        return any(hmac.compare_digest(stored, self._keyed(key, digest)) for key in self._digest_keys)

    @cached_property
    def _fernet(self) -> "MultiFernet":
        from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415 - see above

        return MultiFernet([Fernet(key) for key in self._keys])

    @staticmethod
    def _keyed(key: bytes, digest: str) -> str:
        return KEYED_PREFIX + hmac.new(key, digest.encode(), hashlib.sha256).hexdigest()


def new_key() -> str:
    """Returns a random key for ``Encryptor``."""
    return base64.urlsafe_b64encode(secrets.token_bytes(_KEY_BYTES)).decode()


def read_key_file(path: Path) -> Encryptor:
    """Reads one key a line, the first of which encrypts. Raises ``ConfigError``, which never quotes the content."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(_MAX_FILE_BYTES)
    except FileNotFoundError as error:
        raise ConfigError(f"the secret key file {path} is not there; {_HOW_TO_MAKE}") from error
    except OSError as error:
        raise ConfigError(f"the secret key file {path} cannot be read: {error.strerror or error}") from error
    if mode & 0o077:
        raise ConfigError(f"the secret key file {path}: others may read it (mode {mode:04o}); run: chmod 600 {path}")
    try:
        return Encryptor(content.decode("ascii").split())  # a UnicodeDecodeError is a ValueError
    except ValueError:
        raise ConfigError(
            f"the secret key file {path}: expected one key a line, each of 32 bytes in URL-safe base64; {_HOW_TO_MAKE}"
        ) from None


def read_or_create_key_file(data_dir: Path) -> Encryptor:
    """Reads the key file in the data directory; the first start creates it. Raises ``ConfigError``."""
    path = data_dir / KEY_NAME
    if not path.exists():
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            _create_key_file(path)
        except OSError as error:
            raise ConfigError(f"the secret key file {path} cannot be made: {error.strerror or error}") from error
    return read_key_file(path)


def _create_key_file(path: Path) -> None:
    """Whole or not at all, and never over one that is there: without its key the secrets are lost."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(new_key() + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)
        except FileExistsError:
            return  # another master was faster
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        fresh.unlink()
