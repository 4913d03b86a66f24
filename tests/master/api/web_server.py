"""A WSGI application behind gunicorn's gevent worker, as the master runs it, but on this process's hub; and a client
that controls every byte."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import gevent.socket
from gevent.pool import Pool
from gunicorn.config import Config
from gunicorn.glogging import Logger
from prometheus_client import CollectorRegistry

from fleetpulse.master.config import Limits
from fleetpulse.master.edge.connections import ConnectionLimiter
from fleetpulse.master.instruments import HttpInstruments
from fleetpulse.master.web import MasterWorker

PATIENCE_SECONDS = 20.0


class Served(NamedTuple):
    """Where it listens, and the greenlets of its connections."""

    address: tuple[str, int]
    connections: Pool


@contextmanager
def served(app: Any, limits: Limits = Limits(), idle_seconds: float = 60.0) -> Iterator[Served]:  # noqa: B008 - immutable
    """Idle connections are left alone for so long that what ends one is something else."""
    config = Config()
    config.set("keepalive", 60)  # not 0, so that gunicorn keeps connections; the limiter has the time
    limiter = ConnectionLimiter(limits._replace(idle_seconds=idle_seconds), HttpInstruments(CollectorRegistry()))
    worker = MasterWorker(0, 0, [], None, 30, config, Logger(config), limiter=lambda: limiter, on_stop=limiter.cut_idle)
    worker.wsgi = app
    listener = gevent.socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    connections = Pool(2000)
    server = worker.server_class(listener, spawn=connections)
    server.start()
    try:
        yield Served(listener.getsockname(), connections)
    finally:
        server.stop(timeout=0)
        worker.tmp.close()


class Head(NamedTuple):
    """The first part of an answer; names of headers in lower case."""

    status: int
    headers: dict[str, str]


class Client:
    """One connection."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = gevent.socket.create_connection(address, timeout=PATIENCE_SECONDS)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def end(self) -> None:
        """Send nothing more, and go on reading."""
        self._socket.shutdown(gevent.socket.SHUT_WR)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def request(self, method: str, path: str, *lines: str, body: bytes = b"") -> None:
        head = "".join(f"{line}\r\n" for line in (f"{method} {path} HTTP/1.1", "Host: localhost", *lines, ""))
        self.send(head.encode("latin-1") + body)

    def head(self) -> Head:
        """Wait for the head of an answer."""
        status = self._line().split(" ")[1]
        headers = {}
        while line := self._line():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return Head(int(status), headers)

    def answer(self) -> tuple[int, Any]:
        """Wait for a whole answer of JSON."""
        head = self.head()
        return head.status, json.loads(self._file.read(int(head.headers["content-length"])))

    def chunk(self) -> bytes:
        """Wait for one chunk of an answer; empty: the last one."""
        data: bytes = self._file.read(int(self._line(), 16))
        assert self._line() == ""
        return data

    def is_closed(self) -> bool:
        """Wait until the server says something more, which must be the end."""
        return self._file.read(1) == b""

    def _line(self) -> str:
        line: bytes = self._file.readline()
        assert line.endswith(b"\r\n"), "the connection has ended"
        return line[:-2].decode("latin-1")
