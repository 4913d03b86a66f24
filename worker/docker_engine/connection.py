"""Clients of one Docker Engine, made when it answers, with the version of the API that it speaks."""

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping

from docker import APIClient
from docker.utils import kwargs_from_env

from worker.docker_engine.errors import mapped, unavailable

CALL_SECONDS = 30
_PROBE_SECONDS = 5.0
_POOLED = 32
_DEFAULT_HOST = "unix:///var/run/docker.sock"


class DockerConnection:
    """From any thread."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Where Docker is, and by which certificates it is reached, is taken as the docker command does."""
        self._settings = kwargs_from_env(dict(environment) or {"": ""})
        self.host = str(self._settings.get("base_url", _DEFAULT_HOST))
        self._lock = threading.Lock()
        self._client: APIClient | None = None
        self._version = ""

    @contextlib.contextmanager
    def client(self, container_id: str = "", *, pulling: bool = False) -> Iterator[APIClient]:
        """The client that all calls share. Raises an ``EngineError`` for whatever goes wrong with it."""
        with mapped(self.host, container_id, pulling=pulling):
            self._probe()
            with self._lock:
                client = self._client
                if client is None:
                    client = self._client = APIClient(
                        **self._settings, version="auto", timeout=CALL_SECONDS, max_pool_size=_POOLED
                    )
                    self._version = str(client.api_version)
            yield client

    @contextlib.contextmanager
    def stream_client(self, container_id: str = "") -> Iterator[APIClient]:
        """A client for one long answer alone, so that ending it early harms no other."""
        with self.client(container_id), APIClient(**self._settings, version=self._version, timeout=CALL_SECONDS) as own:
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
