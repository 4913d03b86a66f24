"""A master under test: a process with an HTTP client."""

import re
import signal
import sys
from collections.abc import Sequence
from typing import Any

import psutil
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.processes import Processes, RunningProcess
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST, free_port

FAST_LEASE_FLAGS = ("--heartbeat-interval", "0.5s", "--inactivity-timeout", "2s")
FAST_INTERVAL_SECONDS = 0.5
FAST_TIMEOUT_SECONDS = 2.0

READY_SECONDS = 20.0


class MasterClient:
    """An HTTP client of a master."""

    def __init__(self, http_port: int) -> None:
        self.url = f"http://{LOCALHOST}:{http_port}"
        self.session = requests.Session()
        self.session.trust_env = False

    def get(self, path: str, **kwargs: Any) -> requests.Response:
        return self.session.get(self.url + path, timeout=10, **kwargs)

    def json(self, path: str) -> Any:
        response = self.get(path)
        assert response.status_code == 200, response.text
        return response.json()

    def is_healthy(self) -> bool:
        return self.get("/health").status_code == 200

    def workers(self) -> dict[str, bool]:
        """Whether each worker is active, by id."""
        return {worker_id: worker["is_active"] for worker_id, worker in self.json("/workers").items()}

    def active(self) -> int:
        return sum(self.workers().values())

    def samples(self, name: str) -> dict[tuple[str, ...], float]:
        """The samples of one metric. The keys are the label values, ordered by label name."""
        return {
            tuple(value for _, value in sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.get("/metrics").text)
            for sample in family.samples
            if sample.name == name
        }

    def sample(self, name: str, *labels: str) -> float:
        """One sample; 0 when there is none, as for a counter without increments."""
        return self.samples(name).get(labels, 0.0)

    def close(self) -> None:
        self.session.close()


class Master(MasterClient):
    """``python -m fleetpulse.master`` on two free ports."""

    def __init__(self, processes: Processes, *flags: str, prefix: Sequence[str] = (), **env: str) -> None:
        """``prefix`` is a command line that runs the master's."""
        self.http_port, self.grpc_port = free_port(), free_port()
        super().__init__(self.http_port)
        self.target = f"{LOCALHOST}:{self.grpc_port}"
        self._processes, self._prefix, self._flags, self._env = processes, prefix, flags, env
        self.process = self._start()

    def restart(self, *flags: str) -> None:
        """Stops it, and starts it again on the same ports and with the same data. Later flags win."""
        self.stop()
        self.start(*flags)

    def stop(self) -> None:
        """Ends it with SIGTERM."""
        self.process.send(signal.SIGTERM)
        self.process.wait()

    def start(self, *flags: str) -> None:
        """Starts it again, see ``restart``."""
        self.process = self._start(*flags)

    def _start(self, *flags: str) -> RunningProcess:
        command = (sys.executable, "-m", "fleetpulse.master", *self.port_flags, *self._flags, *flags)
        return self._processes.start("master", *self._prefix, *command, **self._env)

    @property
    def port_flags(self) -> tuple[str, ...]:
        return "--http-port", str(self.http_port), "--grpc-port", str(self.grpc_port)

    def web_process(self) -> psutil.Process:
        """The web process of gunicorn's arbiter."""
        (web,) = eventually(self.process.children)
        return web

    def assert_no_errors(self) -> None:
        """Asserts that there is no traceback in the log."""
        assert not self.log_lines("Traceback|never retrieved|Exception ignored"), self.process.err

    def log_lines(self, pattern: str) -> list[str]:
        """The lines of its log that match the pattern."""
        return [line for line in self.process.err.splitlines() if re.search(pattern, line)]


def started_master(processes: Processes, *flags: str, prefix: Sequence[str] = (), **env: str) -> Master:
    """Starts a master and waits until it is healthy."""
    master = Master(processes, *flags, prefix=prefix, **env)
    eventually(lambda: master.is_healthy() or not master.process.is_running, READY_SECONDS)
    assert master.process.is_running, master.process.err
    return master
