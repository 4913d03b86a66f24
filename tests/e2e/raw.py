"""An HTTP client that controls every byte and its source address."""

import http.client
import json
import socket
import ssl
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.ports import LOCALHOST

TIMEOUT_SECONDS = 30.0
PROBLEM = "application/problem+json"


class Answer(NamedTuple):
    """A response."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def detail(self, expected: int) -> str:
        """The detail of a problem document, which must have this status."""
        assert (self.status, self.headers["Content-Type"]) == (expected, PROBLEM), self
        problem = json.loads(self.body)
        assert problem["status"] == expected
        assert problem["title"]
        detail = problem["detail"]
        assert isinstance(detail, str)
        return detail


class RawConnection:
    """One connection."""

    def __init__(self, port: int, source: str = LOCALHOST) -> None:
        self.socket = socket.create_connection((LOCALHOST, port), TIMEOUT_SECONDS, (source, 0))

    def begin_tls(self, context: ssl.SSLContext) -> None:
        """Starts TLS. Raises ``OSError``."""
        self.socket = context.wrap_socket(self.socket, server_hostname=LOCALHOST)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def pour(self, data: bytes, at_most: int) -> int:
        """Sends the data repeatedly until the master accepts no more. Returns the number of bytes sent."""
        sent = 0
        try:
            while sent < at_most:
                self.socket.sendall(data)
                sent += len(data)
        except OSError:
            pass
        return sent

    def get(self, path: str, *lines: str, method: str = "GET", body: bytes = b"") -> Any:
        """Sends a request and waits for the answer."""
        self.ask(path, *lines, method=method, body=body)
        return self.answer(method)

    def ask(self, path: str, *lines: str, method: str = "GET", body: bytes = b"") -> None:
        self.send(
            "".join(f"{line}\r\n" for line in (f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "")).encode()
            + body
        )

    def answer(self, method: str = "GET") -> Answer:
        """Waits for a complete answer."""
        response = http.client.HTTPResponse(self.socket, method=method)
        response.begin()
        return Answer(response.status, response.headers, response.read())

    def stream(self, path: str) -> int:
        """Requests a stream and returns its status."""
        self.ask(path)
        response = http.client.HTTPResponse(self.socket)
        response.begin()
        return response.status

    def is_cut(self) -> bool:
        """Waits for the next byte. Returns whether the connection was closed instead."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True
