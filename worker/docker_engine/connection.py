"""Clients of one Docker Engine, made when it answers, with the version of the API that it speaks."""

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping

from docker import APIClient
from docker.errors import DockerException
from docker.utils import kwargs_from_env

from fleetpulse.worker.docker_engine.errors import mapped, unavailable

CALL_SECONDS = 30
_PROBE_SECONDS = 5.0
_POOLED = 32
_DEFAULT_HOST = "unix:///var/run/docker.sock"


class DockerConnection:
    """From any thread."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Where Docker is, and by which certificates it is reached, is taken as the docker command does."""
        self._environment = dict(environment) or {"": ""}  # an empty one would stand for the process's own
        self.host = self._environment.get("DOCKER_HOST") or _DEFAULT_HOST
        self._lock = threading.Lock()
        self._client: APIClient | None = None

    @contextlib.contextmanager
    def client(self, container_id: str = "", *, pulling: bool = False) -> Iterator[APIClient]:
        """The client that all calls share. Raises an ``EngineError`` for whatever goes wrong with it."""
        with mapped(self.host, container_id, pulling=pulling):
            self._probe()
            with self._lock:
                if self._client is None:
                    self._client = self._new_client("auto")
                client = self._client
            yield client

    @contextlib.contextmanager
    def stream_client(self, container_id: str = "") -> Iterator[APIClient]:
        """A client for one long answer alone, so that ending it early harms no other."""
        with self.client(container_id) as shared, self._new_client(str(shared.api_version)) as own:
            yield own

    def renew(self) -> None:
        """The engine was away, and may come back as another version."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def close(self) -> None:
        """Let the connections go."""
        self.renew()

    def _new_client(self, version: str) -> APIClient:
        try:
            settings = kwargs_from_env(self._environment)
            return APIClient(**settings, version=version, timeout=CALL_SECONDS, max_pool_size=_POOLED)
        except DockerException as error:  # also for what the environment says of certificates
            raise unavailable(self.host, error) from error

    def _probe(self) -> None:
        """Says sooner, and in plainer words, that nobody listens; the SDK would leave the socket to the collector."""
        if not self.host.startswith("unix://"):
            return
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_PROBE_SECONDS)
            try:
                probe.connect(self.host.removeprefix("unix://"))
            except OSError as error:
                raise unavailable(self.host, error) from error
