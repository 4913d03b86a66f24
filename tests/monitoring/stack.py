"""Runs the files of monitoring/ in real programs on free ports of 127.0.0.1, with short waiting times."""

import http.server
import json
import re
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import requests

from tests.e2e.processes import Processes
from tests.e2e.prometheus import Prometheus
from tests.e2e.waiting import eventually
from tests.monitoring.rules import MONITORING, RULES
from tests.ports import LOCALHOST, free_port
from tests.tools import require_tool


def session() -> requests.Session:
    """Returns a session without proxies."""
    own = requests.Session()
    own.trust_env = False
    return own


class ShippedPrometheus(Prometheus):
    """monitoring/prometheus.yml and its rules; ``ports`` maps text of the file to the port to use in it."""

    def __init__(self, processes: Processes, ports: Mapping[str, int]) -> None:
        self.url = f"http://{LOCALHOST}:{free_port()}"
        self._session = session()
        folder = processes.folder / "monitoring"
        shutil.copytree(RULES, folder / "rules")
        for file in (folder / "rules").glob("*.yml"):
            file.write_text(re.sub(r"(for|interval): 1m$", r"\1: 1s", file.read_text(), flags=re.MULTILINE))
        text = re.sub(r"(_interval): \d+s", r"\1: 1s", (MONITORING / "prometheus.yml").read_text())
        for shipped, port in ports.items():
            assert shipped in text
            text = text.replace(shipped, shipped.replace(re.findall(r"\d+", shipped)[0], str(port)))
        config = folder / "prometheus.yml"
        config.write_text(text)
        processes.start(
            "prometheus", str(require_tool("prometheus")), f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address={self.url.removeprefix('http://')}",
            "--log.level=warn",
        )  # fmt: skip
        eventually(lambda: self._session.get(f"{self.url}/-/ready", timeout=5).status_code == 200, 20.0)

    def rules(self) -> list[dict[str, Any]]:
        """Returns every rule with its health."""
        groups = self._session.get(f"{self.url}/api/v1/rules", timeout=10).json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]


class ShippedAlertmanager:
    """monitoring/alertmanager.yml, with a webhook as receiver."""

    def __init__(self, processes: Processes, webhook_port: int) -> None:
        self.port = free_port()
        self.url = f"http://{LOCALHOST}:{self.port}"
        self._session = session()
        text = (MONITORING / "alertmanager.yml").read_text().replace("localhost:5001", f"localhost:{webhook_port}")
        config = processes.folder / "alertmanager.yml"
        config.write_text(re.sub(r"(group_wait|group_interval): \d+[sm]", r"\1: 1s", text))
        processes.start(
            "alertmanager", str(require_tool("prometheus-alertmanager")), f"--config.file={config}",
            f"--storage.path={processes.folder / 'alertmanager'}", f"--web.listen-address={LOCALHOST}:{self.port}",
            "--cluster.listen-address=", "--log.level=warn",
        )  # fmt: skip
        eventually(lambda: self._session.get(f"{self.url}/-/ready", timeout=5).status_code == 200, 20.0)

    def post(self, *alerts: Mapping[str, str]) -> None:
        """Makes alerts with these labels fire."""
        body = [{"labels": dict(labels)} for labels in alerts]
        self._session.post(f"{self.url}/api/v2/alerts", json=body, timeout=10).raise_for_status()

    def inhibited(self) -> dict[str, bool]:
        """Returns whether each firing alert is inhibited, by name."""
        alerts = self._session.get(f"{self.url}/api/v2/alerts", timeout=10).json()
        return {alert["labels"]["alertname"]: bool(alert["status"]["inhibitedBy"]) for alert in alerts}

    def close(self) -> None:
        self._session.close()


class Webhook:
    """Records the alerts that Alertmanager sends, as (path, status, labels and annotations)."""

    def __init__(self) -> None:
        self.received: list[tuple[str, str, dict[str, str]]] = []
        webhook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                webhook.received += [
                    (self.path, alert["status"], alert["labels"] | alert["annotations"]) for alert in message["alerts"]
                ]
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that http.server gives it
                """Logs nothing: pytest's output is for failures."""

        self._server = http.server.ThreadingHTTPServer((LOCALHOST, 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def find(self, path: str, status: str, alertname: str) -> dict[str, str] | None:
        """Returns the labels and annotations of such an alert, or ``None`` if it was not received."""
        for received in self.received:
            if received[:2] == (path, status) and received[2]["alertname"] == alertname:
                return received[2]
        return None

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def webhook() -> Iterator[Webhook]:
    """Runs a webhook for the block."""
    own = Webhook()
    try:
        yield own
    finally:
        own.close()
