"""Readers of the telemetry stream over real connections: one that keeps the workers, and a pool that counts."""

import http.client
import json
import selectors
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any, Self

from tests.ports import LOCALHOST

PATH = "/telemetry/stream"
_LARGE = 256 * 1024


class LiveReader:
    """Keeps a map of workers, as docs/rest.md describes."""

    def __init__(self, port: int, query: str = "", last_id: str | None = None) -> None:
        self._connection = http.client.HTTPConnection(LOCALHOST, port, timeout=20)
        headers = {} if last_id is None else {"Last-Event-ID": last_id}
        self._connection.request("GET", PATH + query, headers=headers)
        self._response = self._connection.getresponse()
        assert self._response.status == 200
        self.workers: dict[str, Any] = {}
        self.resets: list[str] = []
        self.last_id = last_id

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._response.close()
        self._connection.close()

    def read_event(self) -> tuple[str, Any] | None:
        """Waits for an event and applies it. Returns ``None`` at the end of the stream."""
        fields: dict[str, str] = {}
        while line := self._response.readline().decode().rstrip("\n"):
            name, _, value = line.partition(": ")
            fields[name] = value
        if not fields:
            return None
        kind, data = fields.get("event", ""), json.loads(fields.get("data", "{}"))
        self.last_id = fields.get("id", self.last_id)
        if kind == "reset":
            self.workers.clear()
            self.resets.append(data["reason"])
        elif kind in {"snapshot", "update"}:
            self.workers.update(data["workers"])
        elif kind == "removed":
            for worker_id in data["worker_ids"]:
                self.workers.pop(worker_id, None)
        return kind, data

    def active(self) -> dict[str, bool]:
        """Whether each known worker is active."""
        return {worker_id: worker["is_active"] for worker_id, worker in self.workers.items()}

    def read_until_active(self, number: int) -> None:
        while sum(self.active().values()) != number:
            assert self.read_event() is not None, "the stream has ended"


class ReaderPool:
    """Many readers in one thread that counts their updates. ``stalled`` further ones are never read from."""

    def __init__(self, port: int, queries: Sequence[str], stalled: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._sockets = [self._opened(port, query) for query in queries]
        self._stalled = [self._opened(port, "", receive_buffer=4096) for _ in range(stalled)]
        self.updates = [0] * len(queries)
        self.received_bytes = 0
        self.ended: list[int] = []
        self.longest_silence_seconds = 0.0
        self._updated_at = [time.monotonic()] * len(queries)
        for number, connection in enumerate(self._sockets):
            self._selector.register(connection, selectors.EVENT_READ, number)
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._read, name="readers")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._is_stopping.set()
        self._thread.join()
        self._selector.close()
        for connection in (*self._sockets, *self._stalled):
            connection.close()

    def all_updated(self) -> "AllUpdated":
        """A condition: every reader has received an update since this call."""
        return AllUpdated(self)

    @staticmethod
    def _opened(port: int, query: str, receive_buffer: int = 0) -> socket.socket:
        connection = socket.socket()
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(20.0)
        connection.connect((LOCALHOST, port))
        connection.sendall(f"GET {PATH}{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return connection

    def _read(self) -> None:
        buffer = bytearray(_LARGE)
        while not self._is_stopping.is_set():
            for key, _ in self._selector.select(timeout=0.1):
                self._take(key.data, buffer)

    def _take(self, number: int, buffer: bytearray) -> None:
        try:
            size = self._sockets[number].recv_into(buffer)
        except OSError:
            size = 0
        if not size:
            self._selector.unregister(self._sockets[number])
            self.ended.append(number)
            return
        now = time.monotonic()
        self.received_bytes += size
        # The head of an event may be split over two reads; it is then not counted.
        if found := buffer.count(b"event: update", 0, size):
            self.updates[number] += found
            self.longest_silence_seconds = max(self.longest_silence_seconds, now - self._updated_at[number])
            self._updated_at[number] = now


class AllUpdated:
    """Whether every reader of a pool has received an update since this was made."""

    def __init__(self, readers: ReaderPool) -> None:
        self._swarm = readers
        self._before = list(readers.updates)

    def __call__(self) -> bool:
        return all(now > before for now, before in zip(self._swarm.updates, self._before, strict=True))
