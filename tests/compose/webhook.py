"""Runs in its own container and writes each message of Alertmanager as one line of JSON with its time."""

import json
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

PORT = 5001


class Handler(BaseHTTPRequestHandler):
    """Accepts every POST."""

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        print(json.dumps({"time": time.time(), "path": self.path, "message": message}), flush=True)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server gives it
        """Logs nothing: the output is only messages."""


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
