"""Logins at registries, from a file as ``docker login`` writes it: ``{"auths": {"registry.example.com": {...}}}``.

Only what stands in the file is used: no helper program is run. It is read again for each pull, so that a token may be
replaced while the worker runs. No message repeats any of it but the names of registries.
"""

import base64
import binascii
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fleetpulse.proto.image import DOCKER_HUB, normalised
from fleetpulse.worker.tasks.engine import EngineRefused

MAX_FILE_BYTES = 1024 * 1024

_DOCKER_HUB_NAMES = frozenset({"index.docker.io", "registry-1.docker.io"})
_TOKENS = ("identitytoken", "registrytoken")


class RegistryConfigError(Exception):
    """The file is not usable; one line that names it."""


class RegistryLogins:
    """From any thread."""

    def __init__(self, path: Path) -> None:
        """Raises ``RegistryConfigError``."""
        self._path = path
        self._read()

    def of(self, image: str) -> dict[str, str]:
        """What the Docker SDK takes as ``auth_config``; empty for a registry that the file does not have.

        Raises ``EngineRefused`` when the file has become unusable.
        """
        try:
            logins = self._read()
        except RegistryConfigError as error:
            raise EngineRefused(str(error), "image_pull_failed") from error
        return logins.get(normalised(image).registry, {})

    def _read(self) -> Mapping[str, dict[str, str]]:
        try:
            with self._path.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                if mode & 0o077:
                    raise RegistryConfigError(
                        f"registry config {self._path}: others may read it (mode {mode:04o}); "
                        f"run: chmod 600 {self._path}"
                    )
                content = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise RegistryConfigError(f"registry config {self._path}: {error.strerror or error}") from error
        try:
            return _logins(content)
        except ValueError as error:
            raise RegistryConfigError(f"registry config {self._path}: {error}") from None


def _logins(content: bytes) -> Mapping[str, dict[str, str]]:
    """By registry. Raises ``ValueError`` with what is wrong."""
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"has more than {MAX_FILE_BYTES} bytes")
    try:
        config = json.loads(content)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    auths = config.get("auths") if isinstance(config, dict) else None
    if not isinstance(auths, dict):
        raise ValueError('must be an object with "auths" in it, as docker login writes it')  # noqa: TRY004 - one kind
    return {_registry(name): _login(name, entry) for name, entry in auths.items()}


def _registry(name: str) -> str:
    """``https://index.docker.io/v1/`` is Docker Hub; others may be written as URLs, too."""
    host = name.partition("://")[2] or name
    host = host.partition("/")[0]
    return DOCKER_HUB if host in _DOCKER_HUB_NAMES else host


def _login(name: str, entry: Any) -> dict[str, str]:
    server = {"serveraddress": name}
    if not isinstance(entry, dict):
        raise ValueError(f"auths.{name!a} must be an object")  # noqa: TRY004 - one kind
    said = {key: value for key, value in entry.items() if isinstance(value, str) and value}
    if tokens := {key: said[key] for key in _TOKENS if key in said}:
        return tokens | server
    if "username" in said and "password" in said:
        return {"username": said["username"], "password": said["password"], **server}
    if "auth" not in said:
        raise ValueError(f"auths.{name!a} has no auth: a login that a helper program keeps cannot be used")
    try:
        username, colon, password = base64.b64decode(said["auth"], validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise ValueError(f"auths.{name!a}.auth is not base64 of USER:PASSWORD") from None
    if not (username and colon):
        raise ValueError(f"auths.{name!a}.auth is not base64 of USER:PASSWORD")
    return {"username": username, "password": password, **server}
