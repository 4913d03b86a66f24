"""The connection to a Docker Engine: a shared client, the mapping of Docker's errors, log and event streams."""

import asyncio
import contextlib
import logging
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from docker import APIClient
from docker.errors import APIError, DockerException, NotFound, StreamParseError
from docker.types import CancellableStream
from docker.utils import kwargs_from_env

from fleetpulse.proto.listeners import is_loopback
from fleetpulse.worker.docker_engine.containers import OWNER_LABEL
from fleetpulse.worker.tasks.engine import EngineError, EngineRefused, EngineUnavailable, NoSuchContainer

_log = logging.getLogger(__name__)

CALL_SECONDS = 30
MAX_BUFFERED_BYTES = 256 * 1024
"""Of a log that nobody reads."""

_PROBE_SECONDS = 5.0
_POOL_SIZE = 32
_DEFAULT_HOST = "unix:///var/run/docker.sock"
_EVENTS_RETRY_SECONDS = 1.0
_MAX_MESSAGE_LENGTH = 500


class _DirectClient(APIClient):
    """Uses no proxy of the environment: the engine is on this machine."""

    def merge_environment_settings(self, *settings: Any, **more: Any) -> Any:
        self.trust_env = False
        return super().merge_environment_settings(*settings, **more)


class DockerConnection:
    """The client is made when the engine answers, for its version of the API. Usable from any thread."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """``environment``: ``DOCKER_HOST`` and the like, as for the docker command."""
        self._environment = dict(environment) or {"": ""}  # the SDK takes an empty one for the process's own
        self.host = self._environment.get("DOCKER_HOST") or _DEFAULT_HOST
        self._lock = threading.Lock()
        self._client: APIClient | None = None

    @contextlib.contextmanager
    def client(self, container_id: str = "", *, pulling: bool = False) -> Iterator[APIClient]:
        """The shared client. Errors within are raised as ``EngineError``."""
        with map_errors(self.host, container_id, pulling=pulling):
            self._probe()
            with self._lock:
                if self._client is None:
                    self._client = self._new_client("auto")
                client = self._client
            yield client

    @contextlib.contextmanager
    def stream_client(self, container_id: str = "") -> Iterator[APIClient]:
        """A client for one stream, which can be cut without harm to other calls."""
        with self.client(container_id) as shared, self._new_client(str(shared.api_version)) as own:
            yield own

    def close(self) -> None:
        """Drops the client. The next call makes another: an engine that was away may return as another version."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _new_client(self, version: str) -> APIClient:
        try:
            settings = kwargs_from_env(self._environment)
            client = _DirectClient if self._is_local() else APIClient
            return client(**settings, version=version, timeout=CALL_SECONDS, max_pool_size=_POOL_SIZE)
        except DockerException as error:  # also for wrong certificates in the environment
            raise _unavailable(self.host, error) from error

    def _is_local(self) -> bool:
        return self.host.startswith("unix://") or is_loopback(urlsplit(self.host).hostname or "")

    def _probe(self) -> None:
        """Fails sooner and with a plainer message than the SDK, which also leaks the socket."""
        if not self.host.startswith("unix://"):
            return
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_PROBE_SECONDS)
            try:
                probe.connect(self.host.removeprefix("unix://"))
            except OSError as error:
                raise _unavailable(self.host, error) from error


_ERRORS = (
    ("no space left on device", "disk_full",
     "the disk that Docker keeps its data on is full; free some, with `docker system prune` for one"),
    ("exec format error", "image_invalid", "the image is made for another kind of processor"),
    ("executable file not found", "command_not_found", "the image has no such program"),
    ("unable to start container process.*no such file or directory", "command_not_found",
     "the image has no such program"),
    ("unable to start container process.*permission denied", "command_not_found", "the program cannot be executed"),
    ("no command specified", "command_not_found", "the image names no command; give one"),
    ("invalid reference format|must be lowercase", "image_invalid", "this is no reference of an image"),
    ("no matching manifest|does not match the specified platform", "image_invalid",
     "the image is not made for this kind of machine"),
    ("could not select device driver", "container_failed",
     "Docker cannot hand out GPUs here; install the NVIDIA Container Toolkit on this worker"),
)  # fmt: skip
"""A pattern for Docker's answer, the reason of the attempt's failure, and advice; the first match counts."""

_PULL_ERRORS = (
    ("pull access denied|manifest unknown|no such image|not found|unauthorized|denied|no basic auth", "image_not_found",
     "no registry gives it; check its name, and that this worker may pull it"),
    ("toomanyrequests", "image_pull_failed", "the registry limits how often this worker may pull"),
    ("", "image_pull_failed", "the image could not be pulled; can this worker reach the registry?"),
)  # fmt: skip


def refusal(answer: str, *, pulling: bool = False) -> EngineRefused:
    """The error for an answer of the engine, with its reason."""
    text = " ".join(answer.split())[:_MAX_MESSAGE_LENGTH]
    for pattern, reason, advice in _ERRORS + (_PULL_ERRORS if pulling else ()):
        if re.search(pattern, text, re.IGNORECASE):
            return EngineRefused(f"{advice} ({text})", reason)
    return EngineRefused(f"the engine refused: {text}")


@contextlib.contextmanager
def map_errors(host: str, container_id: str = "", *, pulling: bool = False) -> Iterator[None]:
    """Raises an ``EngineError`` in place of an error of the SDK or of what is below it."""
    try:
        yield
    except EngineError:
        raise
    except NotFound as error:
        if container_id and "no such container" in str(error.explanation).lower():
            raise NoSuchContainer(container_id) from error
        raise refusal(str(error.explanation), pulling=True) from error
    except APIError as error:
        raise refusal(str(error.explanation or error), pulling=pulling) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, StreamParseError) as error:
        raise _unavailable(host, error) from error
    except DockerException as error:  # the SDK itself: an engine that is too old, a login that cannot be read
        raise refusal(str(error), pulling=pulling) from error


def _unavailable(host: str, error: BaseException) -> EngineUnavailable:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return EngineUnavailable(f"no Docker Engine answers at {host}: {' '.join(why.split())[:_MAX_MESSAGE_LENGTH]}")


class _StreamThread:
    """A thread that reads one stream until ``close`` and calls back on the loop."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._closed = threading.Event()
        self._stream: CancellableStream[Any] | None = None
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def close(self) -> None:
        """From the loop. The thread ends soon after."""
        self._closed.set()
        self._cut()

    @contextlib.contextmanager
    def _reading(self, stream: "CancellableStream[Any]") -> Iterator[None]:
        """From the thread: ``close`` cuts this stream. Closes its file at the end."""
        self._stream = stream
        if self._closed.is_set():  # before there was a stream to cut
            self._cut()
        try:
            yield
        finally:
            self._cut()
            with contextlib.suppress(OSError, AttributeError, ValueError):
                # The SDK leaves it to the garbage collector, and its stub does not show it.
                stream._response.close()  # type: ignore[attr-defined]  # noqa: SLF001

    def _cut(self) -> None:
        """The stream may end by itself at the same moment, with any of these errors."""
        stream = self._stream
        if stream is not None:
            with contextlib.suppress(OSError, AttributeError, ValueError):
                stream.close()

    def _call_on_loop(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call)

    def _run(self) -> None:
        raise NotImplementedError


class DockerLog(_StreamThread):
    """``tasks.engine.LogStream``: stdout and stderr in order, with a bounded buffer."""

    def __init__(self, connection: DockerConnection, container_id: str, *, follow: bool) -> None:
        self._connection = connection
        self._container_id = container_id
        self._follow = follow
        self._buffer = bytearray()
        self._error: EngineError | None = None
        self._has_ended = False
        self._changed = threading.Condition()
        self._readable = asyncio.Event()
        super().__init__(f"docker-log-{container_id[:12]}")

    async def read(self) -> bytes:
        """See ``LogStream``."""
        while True:
            await self._readable.wait()
            with self._changed:
                data = bytes(self._buffer)
                self._buffer.clear()
                self._changed.notify()
                if not self._has_ended:
                    self._readable.clear()
                elif not data and self._error is not None:
                    raise self._error
                if data or self._has_ended:
                    return data

    def close(self) -> None:
        """See ``LogStream``."""
        super().close()
        with self._changed:
            self._has_ended = True
            self._changed.notify()
        self._readable.set()

    def _run(self) -> None:
        try:
            with self._connection.stream_client(self._container_id) as client:
                stream = client.logs(self._container_id, stream=True, follow=self._follow)
                with self._reading(stream):
                    # Without the SDK's wrapper, which hides that a stream broke.
                    for data in stream._stream:  # type: ignore[attr-defined]  # noqa: SLF001
                        self._put(data)
                        if self._closed.is_set():
                            break
        except EngineError as error:
            self._error = error
        except (struct.error, AttributeError, ValueError) as error:  # the SDK's errors for a truncated answer
            self._error = EngineUnavailable(f"a log broke off: {error}")
        finally:
            with self._changed:
                self._has_ended = True
            self._call_on_loop(self._readable.set)

    def _put(self, data: bytes) -> None:
        """Waits while the buffer is full."""
        with self._changed:
            while len(self._buffer) >= MAX_BUFFERED_BYTES and not self._closed.is_set():
                self._changed.wait()
            was_empty = not self._buffer
            self._buffer += data
        if was_empty:
            self._call_on_loop(self._readable.set)


class DockerEvents(_StreamThread):
    """Calls ``on_exit``, on the loop, with the id of each container of the worker that ended; with an empty one when
    events may have been missed."""

    def __init__(self, connection: DockerConnection, secret: str, on_exit: Callable[[str], None]) -> None:
        self._connection = connection
        self._filters = {"type": "container", "event": "die", "label": f"{OWNER_LABEL}={secret}"}
        self._on_exit = on_exit
        super().__init__("docker-events")

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._listen()
            except (EngineError, AttributeError, ValueError) as error:  # the latter for a truncated answer
                _log.debug("no events: %s", error)
            self._closed.wait(_EVENTS_RETRY_SECONDS)

    def _listen(self) -> None:
        with self._connection.stream_client() as client:
            events = client.events(filters=self._filters, decode=True)
            with self._reading(events):
                self._exited("")
                for event in events:
                    self._exited(str(event.get("id", "")))

    def _exited(self, container_id: str) -> None:
        self._call_on_loop(lambda: self._on_exit(container_id))
