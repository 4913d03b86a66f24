"""The stack of docker-compose.yml, without Grafana, on a separate Docker Engine."""

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


def wait_for(condition: Callable[[], Answer | None], timeout: float) -> Answer:
    """Like ``eventually``, but checks only twice a second, because the machine is busy."""

    def poll() -> Answer | None:
        if not (answer := condition()):
            time.sleep(0.5)
        return answer

    answer = eventually(poll, timeout)
    assert answer is not None
    return answer


class Message(NamedTuple):
    """A message of Alertmanager to the webhook about one alert."""

    time: float
    receiver: str
    status: str
    labels: dict[str, str]


class Stack:
    """``settings`` are the lines of a user's ``.env``."""

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
        """Runs docker-compose to its end. Raises ``AssertionError`` with its output if it fails."""
        files = [word for name in _FILES for word in ("--file", str(ROOT / name))]
        command = [
            str(require_tool("docker-compose")), "--project-name", PROJECT, "--project-directory", str(ROOT),
            "--env-file", str(self._env_file), *files, *words,
        ]  # fmt: skip
        # Without the machine's environment, which has precedence over the file. The engine builds, not a plug-in.
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
        """Returns the current container of a service."""
        (found,) = self._containers(f"com.docker.compose.service={service}")
        return found

    def _containers(self, *labels: str) -> list[Container]:
        wanted = [f"com.docker.compose.project={PROJECT}", *labels]
        return self._client.containers.list(all=True, filters={"label": wanted}, ignore_removed=True)

    def health(self) -> dict[str, str]:
        """Returns the result of the health check of each service."""
        states = {service: self.container(service).attrs["State"] for service in SERVICES}
        return {service: state["Health"]["Status"] for service, state in states.items() if "Health" in state}

    def users(self) -> dict[str, set[str]]:
        """Returns the users of the processes of each service."""
        found = {}
        for service in SERVICES:
            top = self.container(service).top(ps_args="-eo uid,pid")
            found[service] = {process[top["Titles"].index("UID")] for process in top["Processes"]}
        return found

    def url(self, name: str) -> str:
        """Returns the address of a port of the stack, such as ``PROMETHEUS`` or ``MASTER_HTTP``."""
        return f"http://{LOCALHOST}:{self._ports[name]}"

    def json(self, name: str, path: str, **params: str) -> Any:
        response = self._session.get(self.url(name) + path, params=params, timeout=10)
        response.raise_for_status()
        return response.json()

    def sign_in(self) -> None:
        """Makes an admin token, as a user would, and sends it with all further requests."""
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
        """Returns the value of a query, or ``None`` if it has no result."""
        results = self.json("PROMETHEUS", "/api/v1/query", query=promql)["data"]["result"]
        assert len(results) <= 1, results
        return float(results[0]["value"][1]) if results else None

    def messages(self) -> list[Message]:
        """Returns all messages that reached the webhook."""
        lines = self.container("webhook").logs(stderr=False).decode().splitlines()
        return [
            Message(line["time"], line["message"]["receiver"], alert["status"], alert["labels"])
            for line in map(json.loads, lines)
            for alert in line["message"]["alerts"]
        ]

    def logs(self) -> str:
        """Returns the end of each container's output."""
        return "\n".join(
            f"== {container.name}: {container.status}\n{container.logs(tail=15).decode(errors='replace')}"
            for container in self._containers()
        )

    def close(self) -> None:
        """Removes everything, including the bridge."""
        self.compose("down", "--volumes", "--timeout", "1")
        self._client.close()
        self._session.close()
