"""The file with the key that seals environments, for its owner alone: one key a line, the first of which seals."""

import os
import stat
from pathlib import Path

from fleetpulse.master.errors import ConfigError
from fleetpulse.master.store.sealing import Encryptor, new_key

KEY_NAME = "secret.key"

_MAX_BYTES = 64 * 1024
_HOW_TO_MAKE = "openssl rand -base64 32 | tr '+/' '-_' makes a key"  # as URL-safe base64, which Fernet wants


def read_key_file(path: Path) -> Encryptor:
    """Raises ``ConfigError``, which names the file and never says what is in it."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(_MAX_BYTES)
    except FileNotFoundError as error:
        raise ConfigError(f"the secret key file {path} is not there; {_HOW_TO_MAKE}") from error
    except OSError as error:
        raise ConfigError(f"the secret key file {path} cannot be read: {error.strerror or error}") from error
    if mode & 0o077:
        raise ConfigError(f"the secret key file {path}: others may read it (mode {mode:04o}); run: chmod 600 {path}")
    try:
        return Encryptor(_keys(content))
    except ValueError:
        raise ConfigError(
            f"the secret key file {path}: expected one key a line, each of 32 bytes in URL-safe base64; {_HOW_TO_MAKE}"
        ) from None


def own_key_file(data_dir: Path) -> Encryptor:
    """That of a master which was told of no other: made at the first start. Raises ``ConfigError``."""
    path = data_dir / KEY_NAME
    if not path.exists():
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make(path)
        except OSError as error:
            raise ConfigError(f"the secret key file {path} cannot be made: {error.strerror or error}") from error
    return read_key_file(path)


def _make(path: Path) -> None:
    """Whole or not at all, and never over one that is there: with a lost key the secrets are lost."""
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
            return  # another master was quicker
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        fresh.unlink()


def _keys(content: bytes) -> list[str]:
    keys = content.decode("ascii").split()  # a UnicodeDecodeError is a ValueError
    if not keys:
        raise ValueError("no key")
    return keys
