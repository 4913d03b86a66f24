"""Logins at registries and the progress of pulls.

The file of logins is as ``docker login`` writes it: ``{"auths": {"registry.example.com": {...}}}``. No credential
helper is run. The file is read for each pull, so a token can be replaced while the worker runs. Messages contain only
the names of registries.
"""

import base64
import binascii
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import requests
from docker import APIClient
from docker.auth import encode_header, get_config_header, resolve_repository_name
from docker.errors import create_api_error_from_http_exception
from docker.utils import parse_repository_tag

from fleetpulse.proto.image import DOCKER_HUB, parse_image
from fleetpulse.worker.tasks.engine import EngineRefused

MAX_FILE_BYTES = 1024 * 1024

_DOCKER_HUB_NAMES = frozenset({"index.docker.io", "registry-1.docker.io"})
_TOKENS = ("identitytoken", "registrytoken")
_LAYER_DONE = frozenset({"Pull complete", "Already exists"})
_MEGABYTE = 1_000_000


class RegistryConfigError(Exception):
    """The file is not usable; one line that names it."""


class RegistryLogins:
    """Usable from any thread."""

    def __init__(self, path: Path) -> None:
        """Raises ``RegistryConfigError``."""
        self._path = path
        self._read()

    def login_for(self, image: str) -> dict[str, str]:
        """The SDK's ``auth_config``; empty for a registry that is not in the file.

        Raises ``EngineRefused`` when the file has become unusable.
        """
        try:
            logins = self._read()
        except RegistryConfigError as error:
            raise EngineRefused(str(error), "image_pull_failed") from error
        return logins.get(parse_image(image).registry, {})

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
            return _parse_logins(content)
        except ValueError as error:
            raise RegistryConfigError(f"registry config {self._path}: {error}") from None


def _parse_logins(content: bytes) -> Mapping[str, dict[str, str]]:
    """By registry. Raises ``ValueError``."""
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
    return {_registry(name): _parse_login(name, entry) for name, entry in auths.items()}


def _registry(name: str) -> str:
    """``https://index.docker.io/v1/`` is Docker Hub; others may be URLs, too."""
    host = name.partition("://")[2] or name
    host = host.partition("/")[0]
    return DOCKER_HUB if host in _DOCKER_HUB_NAMES else host


def _parse_login(name: str, entry: Any) -> dict[str, str]:
    server = {"serveraddress": name}
    if not isinstance(entry, dict):
        raise ValueError(f"auths.{name!a} must be an object")  # noqa: TRY004 - one kind
    fields = {key: value for key, value in entry.items() if isinstance(value, str) and value}
    if tokens := {key: fields[key] for key in _TOKENS if key in fields}:
        return tokens | server
    if "username" in fields and "password" in fields:
        return {"username": fields["username"], "password": fields["password"], **server}
    if "auth" not in fields:
        raise ValueError(f"auths.{name!a} has no auth: a login that a helper program keeps cannot be used")
    try:
        username, colon, password = base64.b64decode(fields["auth"], validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        username = colon = password = ""  # nosec B105 # no secret
    if not (username and colon):
        raise ValueError(f"auths.{name!a}.auth is not base64 of USER:PASSWORD")
    return {"username": username, "password": password, **server}


def pull_messages(
    client: APIClient, image: str, login: Mapping[str, str] | None, timeout_seconds: float
) -> Iterator[dict[str, Any]]:
    """Yields the engine's messages of a pull, as they come. Without a ``login`` the client's own is used.

    The SDK's ``pull`` waits for ever for an engine that says nothing; this raises an error of ``requests`` after
    ``timeout_seconds``.
    """
    repository, tag = parse_repository_tag(image)
    header = encode_header(login) if login else None
    if login is None:
        registry, _ = resolve_repository_name(repository)
        header = get_config_header(client, registry)
    response = client.post(
        f"{client.base_url}/v{client.api_version}/images/create",
        params={"fromImage": repository, "tag": tag or "latest"},
        headers={"X-Registry-Auth": header} if header else None,
        stream=True,
        timeout=(timeout_seconds, timeout_seconds),
    )
    with response:
        try:
            response.raise_for_status()
        except requests.HTTPError as error:
            raise create_api_error_from_http_exception(error) from error  # as the SDK does
        for line in response.iter_lines(chunk_size=None):
            if line:
                yield json.loads(line)


class PullProgress:
    """Sums up the answer of ``POST /images/create``, line by line."""

    def __init__(self, image: str) -> None:
        self._image = image
        self._layers: dict[str, tuple[int, int]] = {}
        """Bytes that are here and bytes in all, by layer."""
        self._done: set[str] = set()

    def add(self, line: Mapping[str, Any]) -> None:
        layer, status = str(line.get("id", "")), str(line.get("status", ""))
        if status == "Pulling fs layer":
            self._layers.setdefault(layer, (0, 0))
        elif status == "Downloading":
            detail = line.get("progressDetail") or {}
            self._layers[layer] = (int(detail.get("current") or 0), int(detail.get("total") or 0))
        elif status in _LAYER_DONE:
            _, size = self._layers.get(layer, (0, 0))
            self._layers[layer] = (size, size)
            self._done.add(layer)

    def __str__(self) -> str:
        """For people."""
        text = f"pulling {self._image}"
        if self._layers:
            text += f": {len(self._done)} of {len(self._layers)} layers"
        size = sum(size for _, size in self._layers.values())
        if size:
            here = sum(min(here, size) for here, size in self._layers.values())
            text += f", {here / _MEGABYTE:.0f} of {size / _MEGABYTE:.0f} MB"
        return text
