"""A real Prometheus that scrapes a master, and a relay that records its scrapes."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import requests

from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST, free_port
from tests.tools import require_tool

_CONFIG = """
global:
  scrape_interval: 1s
  scrape_timeout: 1s
scrape_configs:
  - job_name: fleetpulse
    static_configs:
      - targets: [{targets}]
"""


class Prometheus:
    """Scrapes ``HOST:PORT`` targets every second."""

    def __init__(self, processes: Processes, *targets: str) -> None:
        program = require_tool("prometheus")
        self.url = f"http://{LOCALHOST}:{free_port()}"
        config = processes.folder / "prometheus.yml"
        config.write_text(_CONFIG.format(targets=", ".join(f'"{target}"' for target in targets)))
        self._session = requests.Session()
        self._session.trust_env = False
        processes.start(
            "prometheus", str(program), f"--config.file={config}", f"--storage.tsdb.path={processes.folder / 'tsdb'}",
            f"--web.listen-address={self.url.removeprefix('http://')}", "--log.level=warn",
        )  # fmt: skip
        eventually(lambda: self._session.get(f"{self.url}/-/ready", timeout=5).status_code == 200, 20.0)

    def query(self, promql: str) -> dict[tuple[str, ...], float]:
        """The instant vector. The keys are the label values, ordered by label name, without the metric's name."""
        response = self._session.get(f"{self.url}/api/v1/query", params={"query": promql}, timeout=10)
        assert response.status_code == 200, response.text
        return {
            tuple(value for name, value in sorted(sample["metric"].items()) if name != "__name__"): float(
                sample["value"][1]
            )
            for sample in response.json()["data"]["result"]
        }

    def value(self, promql: str) -> float | None:
        """The only sample of the result, or ``None``."""
        values = list(self.query(promql).values())
        assert len(values) <= 1, values
        return values[0] if values else None

    def close(self) -> None:
        self._session.close()


class Scrape(NamedTuple):
    """The ``Accept`` header of a scrape, and the headers of its answer."""

    accept: str
    content_type: str
    encoding: str


class Relay:
    """A proxy of ``/metrics``. ``accept`` replaces the ``Accept`` header of every scrape."""

    def __init__(self, url: str, accept: str | None) -> None:
        self.scrapes: list[Scrape] = []
        relay = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                sent = {"Accept": accept or self.headers["Accept"], "Accept-Encoding": self.headers["Accept-Encoding"]}
                answer = requests.get(url + self.path, headers=sent, timeout=5, stream=True)
                body = answer.raw.read(decode_content=False)
                headers = answer.headers
                relay.scrapes.append(
                    Scrape(sent["Accept"], headers["Content-Type"], headers.get("Content-Encoding", "identity"))
                )
                self.send_response(answer.status_code)
                for name in ("Content-Type", "Content-Encoding"):
                    if name in headers:
                        self.send_header(name, headers[name])
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                answer.close()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that http.server gives it
                """Nothing: pytest's output is for failures."""

        self._server = http.server.ThreadingHTTPServer((LOCALHOST, 0), Handler)
        self.target = f"{LOCALHOST}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def relay_to(url: str, accept: str | None = None) -> Iterator[Relay]:
    """Runs a relay during the block."""
    relay = Relay(url, accept)
    try:
        yield relay
    finally:
        relay.close()
