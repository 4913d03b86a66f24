"""The stack of docker-compose.yml, less Grafana, on a Docker Engine of its own."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import docker
import requests
from docker.models.containers import Container

from tests.compose.images import ALERTMANAGER_IMAGE, PROMETHEUS_IMAGE, PYTHON_IMAGE
from tests.docker_engine import Engine
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST, free_port
from tests.tools import ROOT, require_tool

PROJECT = "fleetpulse-test"
WORKER_ID = "this-host"
SERVICES = ("master", "worker", "simulate", "prometheus", "alertmanager", "webhook")

_FILES = ("docker-compose.yml", "tests/compose/override.yml")
_UP_SECONDS = 400.0


Answer = TypeVar("Answer")


def patiently(condition: Callable[[], Answer | None], timeout: float) -> Answer:
    """As ``eventually``, but asked twice a second: what is waited for here takes its time, and the machine is busy."""

    def slowly() -> Answer | None:
        if not (answer := condition()):
            time.sleep(0.5)
        return answer

    answer = eventually(slowly, timeout)
    assert answer is not None
    return answer


class Message(NamedTuple):
    """What Alertmanager told the webhook about one alert."""

    time: float
    receiver: str
    status: str
    labels: dict[str, str]


class Stack:
    """``settings`` are what a user would write into ``.env``."""

    def __init__(self, engine: Engine, folder: Path, **settings: str) -> None:
        self._engine = engine
        self._client = docker.DockerClient(engine.host, timeout=30)
        names = ("MASTER_HTTP", "MASTER_GRPC", "MASTER_JOIN", "PROMETHEUS", "ALERTMANAGER")
        self._ports = {name: free_port() for name in names}
        for port in self._ports.values():
            engine.forward(port)
        self._session = requests.Session()
        self._session.trust_env = False
        self._env_file = folder / "env"
        socket = engine.host.removeprefix("unix://")
        values = settings | {f"{name}_PORT": str(port) for name, port in self._ports.items()} | {
            "FLEETPULSE_IMAGE": "fleetpulse:test",
            "PYTHON_IMAGE": PYTHON_IMAGE,
            "PROMETHEUS_IMAGE": PROMETHEUS_IMAGE,
            "ALERTMANAGER_IMAGE": ALERTMANAGER_IMAGE,
            "FLEETPULSE_WORKER_ID": WORKER_ID,
            "DOCKER_SOCKET": socket,
            "DOCKER_GID": str(Path(socket).stat().st_gid),
        }  # fmt: skip
        self._env_file.write_text("".join(f"{name}={value}\n" for name, value in values.items()))

    def compose(self, *words: str) -> None:
        """Run docker-compose to its end; ``AssertionError`` with what it said if it fails."""
        files = [word for name in _FILES for word in ("--file", str(ROOT / name))]
        command = [
            str(require_tool("docker-compose")), "--project-name", PROJECT, "--project-directory", str(ROOT),
            "--env-file", str(self._env_file), *files, *words,
        ]  # fmt: skip
        # Nothing of the machine's environment, which would count before the file. The engine builds, not a plug-in.
        env = self._engine.env | {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self._env_file.parent),
            "COMPOSE_DOCKER_CLI_BUILD": "0",
        }
        result = subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_UP_SECONDS, check=False
        )
        assert result.returncode == 0, f"{result.stdout[-3000:]}\n{result.stderr[-3000:]}\n{self.logs()}"

    def container(self, service: str) -> Container:
        """The one of a service, as it is now."""
        (found,) = self._containers(f"com.docker.compose.service={service}")
        return found

    def _containers(self, *labels: str) -> list[Container]:
        wanted = [f"com.docker.compose.project={PROJECT}", *labels]
        return self._client.containers.list(all=True, filters={"label": wanted}, ignore_removed=True)

    def health(self) -> dict[str, str]:
        """What the health checks say, by service."""
        states = {service: self.container(service).attrs["State"] for service in SERVICES}
        return {service: state["Health"]["Status"] for service, state in states.items() if "Health" in state}

    def users(self) -> dict[str, set[str]]:
        """Under which users the processes of each service run."""
        found = {}
        for service in SERVICES:
            top = self.container(service).top(ps_args="-eo uid,pid")
            found[service] = {process[top["Titles"].index("UID")] for process in top["Processes"]}
        return found

    def url(self, name: str) -> str:
        """Where a port of the stack is, as ``PROMETHEUS`` or ``MASTER_HTTP``."""
        return f"http://{LOCALHOST}:{self._ports[name]}"

    def json(self, name: str, path: str, **params: str) -> Any:
        response = self._session.get(self.url(name) + path, params=params, timeout=10)
        response.raise_for_status()
        return response.json()

    def sign_in(self) -> None:
        """Ask the master with a token of its administrator, made as a user would make it."""
        command = ["fleetpulse", "token", "create", "test", "--role", "admin"]
        code, output = self.container("master").exec_run(command, stderr=False)
        assert code == 0, output
        assert isinstance(output, bytes)
        self._session.headers["Authorization"] = f"Bearer {output.decode().strip()}"

    def post(self, path: str, body: dict[str, Any]) -> Any:
        response = self._session.post(self.url("MASTER_HTTP") + path, json=body, timeout=10)
        response.raise_for_status()
        return response.json()

    def value(self, promql: str) -> float | None:
        """The one value that Prometheus has for it."""
        results = self.json("PROMETHEUS", "/api/v1/query", query=promql)["data"]["result"]
        assert len(results) <= 1, results
        return float(results[0]["value"][1]) if results else None

    def messages(self) -> list[Message]:
        """Everything that reached the webhook."""
        lines = self.container("webhook").logs(stderr=False).decode().splitlines()
        return [
            Message(line["time"], line["message"]["receiver"], alert["status"], alert["labels"])
            for line in map(json.loads, lines)
            for alert in line["message"]["alerts"]
        ]

    def logs(self) -> str:
        """The end of what each container wrote."""
        return "\n".join(
            f"== {container.name}: {container.status}\n{container.logs(tail=15).decode(errors='replace')}"
            for container in self._containers()
        )

    def close(self) -> None:
        """Leave nothing, not even the bridge."""
        self.compose("down", "--volumes", "--timeout", "1")
        self._client.close()
        self._session.close()
