"""A fake Prometheus server with answers that tests choose."""

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs

import orjson

Respond = Callable[[dict[str, str]], bytes]


def success(*series: dict[str, Any]) -> bytes:
    return orjson.dumps({"status": "success", "data": {"resultType": "matrix", "result": list(series)}})


class Server:
    """``respond`` builds the body from the form. ``trickle`` is the pause after each byte of the body, in seconds."""

    def __init__(self) -> None:
        self.queries: list[tuple[str, dict[str, str]]] = []
        self.respond: Respond = lambda _: success()
        self.status = 200
        self.trickle = 0.0
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                form = {name: values[0] for name, values in parse_qs(body).items()}
                server.queries.append((self.path, form))
                answer = server.respond(form)
                self.send_response(server.status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                try:
                    for start in range(0, len(answer), 1) if server.trickle else ():
                        self.wfile.write(answer[start : start + 1])
                        time.sleep(server.trickle)
                    if not server.trickle:
                        self.wfile.write(answer)
                except OSError:
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that http.server gives it
                """Logs nothing: pytest shows output only for failures."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def running_server() -> Iterator[Server]:
    server = Server()
    try:
        yield server
    finally:
        server.close()
