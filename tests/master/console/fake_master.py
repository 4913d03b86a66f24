"""A master with fixed answers over real HTTP. It records the requests."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

PROBLEM = "application/problem+json"


class Request(NamedTuple):
    """A request that was received."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


class Answer(NamedTuple):
    """An answer: JSON, or bytes, or chunks that are sent one by one."""

    body: Any = None
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}
    pieces: Sequence[bytes] | None = None
    is_broken: bool = False
    """The connection closes without an answer."""


Handler = Callable[[Request], Answer]


def problem(status: int, detail: str, **headers: str) -> Answer:
    """An error of a master, as a problem document."""
    return Answer({"status": status, "detail": detail}, status, PROBLEM, headers)


def event(data: Any, kind: str | None = None, event_id: str | None = None) -> bytes:
    """One server-sent event."""
    lines = [*([f"event: {kind}"] if kind else []), *([f"id: {event_id}"] if event_id else [])]
    return "\n".join([*lines, f"data: {json.dumps(data)}", "", ""]).encode()


def events(*pieces: bytes) -> Answer:
    """A stream of events, which ends."""
    return Answer(content_type="text/event-stream", pieces=pieces)


class FakeMaster:
    """Answers by method and path. Of several answers each is used once, the last one for ever."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[Request] = []
        self._answers: dict[tuple[str, str], list[Handler]] = {}

    def on(self, method: str, path: str, *answers: Answer | Handler) -> None:
        """Sets the answers for a method and a path."""
        self._answers[method, path] = [one if callable(one) else _always(one) for one in answers]

    def get(self, path: str, body: Any) -> None:
        """Sets the JSON for a GET."""
        self.on("GET", path, Answer(body))

    def asked(self, method: str, path: str) -> list[Request]:
        """The requests for a method and a path, in order."""
        return [one for one in self.requests if (one.method, one.path) == (method, path)]

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        handlers = self._answers.get((request.method, request.path))
        if not handlers:
            return problem(404, f"nothing is at {request.path}")
        return (handlers.pop(0) if len(handlers) > 1 else handlers[0])(request)


def _always(answer: Answer) -> Handler:
    return lambda _: answer


@contextmanager
def fake_master() -> Iterator[FakeMaster]:
    """Runs a fake master."""

    class Web(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            query = {name: ",".join(given) for name, given in parse_qs(parts.query).items()}
            body = json.loads(data) if data else None
            answer = master.answer(Request(self.command, parts.path, query, dict(self.headers), body))
            if answer.is_broken:
                self.close_connection = True
                return
            self.send_response_only(answer.status)
            self.send_header("Content-Type", answer.content_type)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self._send(answer)

        def _send(self, answer: Answer) -> None:
            if answer.pieces is None:
                content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                return
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in answer.pieces:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")

        do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - the names that http.server looks for

        def log_message(self, *_: object) -> None:
            """Logs nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that closes its connection is no error."""

    with Server(("127.0.0.1", 0), Web) as server:
        master = FakeMaster(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="fake master")
        thread.start()
        try:
            yield master
        finally:
            server.shutdown()
            thread.join()
