"""What Docker sends for as long as it takes: the output of a container, and the news of all. A thread for each."""

import asyncio
import contextlib
import logging
import struct
import threading
from collections.abc import Callable
from typing import Any

from docker.types import CancellableStream

from fleetpulse.worker.docker_engine.connection import DockerConnection
from fleetpulse.worker.docker_engine.containers import WORKER_LABEL
from fleetpulse.worker.tasks.engine import EngineError, EngineUnavailable

_log = logging.getLogger(__name__)

MAX_BUFFERED_BYTES = 256 * 1024
_AGAIN_SECONDS = 1.0


class _Thread:
    """A thread that reads one stream until ``close``, and tells the loop."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._closed = threading.Event()
        self._stream: CancellableStream[Any] | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """From the loop. The thread ends soon after."""
        self._closed.set()
        self._cut()

    def _begin(self, stream: "CancellableStream[Any]") -> None:
        """``close`` may have come while the engine was asked: then there was nothing yet that it could cut."""
        self._stream = stream
        if self._closed.is_set():
            self._cut()

    def _cut(self) -> None:
        """End the answer under way. It may end by itself at this very moment, in any of these ways."""
        stream = self._stream
        if stream is not None:
            with contextlib.suppress(OSError, AttributeError, ValueError):
                stream.close()

    def _finish(self, stream: "CancellableStream[Any]") -> None:
        """From the thread: let go of the file as well, which only its reader may close."""
        self._cut()
        with contextlib.suppress(OSError, AttributeError, ValueError):
            # The SDK leaves it to the garbage collector, and its stub does not show it.
            stream._response.close()  # type: ignore[attr-defined]  # noqa: SLF001

    def _tell(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody listens
            self._loop.call_soon_threadsafe(call)

    def _run(self) -> None:
        raise NotImplementedError


class DockerLog(_Thread):
    """``tasks.engine.LogStream``: stdout and stderr as they come, with a bound on what waits to be read."""

    def __init__(self, connection: DockerConnection, container_id: str, *, follow: bool) -> None:
        self._connection = connection
        self._container_id = container_id
        self._follow = follow
        self._buffer = bytearray()
        self._error: EngineError | None = None
        self._is_over = False
        self._changed = threading.Condition()
        self._something = asyncio.Event()
        super().__init__(f"docker-log-{container_id[:12]}")

    async def read(self) -> bytes:
        """See ``LogStream``."""
        while True:
            await self._something.wait()
            with self._changed:
                self._something.clear()
                data = bytes(self._buffer)
                self._buffer.clear()
                self._changed.notify()
                is_over, error = self._is_over, self._error
            if is_over:
                self._something.set()  # for the next call
            if data:
                return data
            if error is not None:
                raise error
            if is_over:
                return b""

    def close(self) -> None:
        """See ``LogStream``."""
        super().close()
        with self._changed:
            self._is_over = True
            self._changed.notify()
        self._something.set()

    def _run(self) -> None:
        try:
            with self._connection.stream_client(self._container_id) as client:
                stream = client.logs(self._container_id, stream=True, follow=self._follow)
                self._begin(stream)
                try:
                    # Not by way of the SDK's wrapper, to which a stream that broke is one that ended.
                    for data in stream._stream:  # type: ignore[attr-defined]  # noqa: SLF001
                        if not self._put(data):
                            break
                finally:
                    self._finish(stream)
        except EngineError as error:
            self._error = error
        except (struct.error, AttributeError, ValueError) as error:  # how the SDK fails when its answer is cut short
            self._error = EngineUnavailable(f"a log broke off: {error}")
        finally:
            with self._changed:
                self._is_over = True
            self._tell(self._something.set)

    def _put(self, data: bytes) -> bool:
        """Whether more is wanted."""
        with self._changed:
            while len(self._buffer) >= MAX_BUFFERED_BYTES and not self._closed.is_set():
                self._changed.wait()
            was_empty = not self._buffer
            self._buffer += data
        if was_empty:
            self._tell(self._something.set)
        return not self._closed.is_set()


class DockerEvents(_Thread):
    """Calls ``changed``, on the loop, with the id of each container of the worker that ended; with an empty one when
    some may have been missed."""

    def __init__(self, connection: DockerConnection, worker_id: str, changed: Callable[[str], None]) -> None:
        self._connection = connection
        self._filters = {"type": "container", "event": "die", "label": f"{WORKER_LABEL}={worker_id}"}
        self._listener = changed
        super().__init__("docker-events")

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._listen()
            except (EngineError, AttributeError, ValueError) as error:  # the latter when the answer is cut short
                _log.debug("no events: %s", error)
            self._closed.wait(_AGAIN_SECONDS)

    def _listen(self) -> None:
        with self._connection.stream_client() as client:
            events = client.events(filters=self._filters, decode=True)
            self._begin(events)
            self._changed("")
            try:
                for event in events:
                    self._changed(str(event.get("id", "")))
            finally:
                self._finish(events)

    def _changed(self, container_id: str) -> None:
        self._tell(lambda: self._listener(container_id))
