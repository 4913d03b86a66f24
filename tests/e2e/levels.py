"""The resources of a master's web process, and fleets that connect and leave."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from tests.e2e import counted_master
from tests.e2e.masters import Master, MasterClient
from tests.e2e.processes import Processes, RunningProcess
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST, free_port

ALLOWED_OBJECT_GROWTH = 100
"""The normal change of the number of objects. A leak of a fleet is larger."""


class ResourceCounts(NamedTuple):
    """The resources of the web process at one time."""

    files: int
    threads: int
    greenlets: int
    objects: int
    rss_bytes: int


class CountedMaster(Master):
    """A master whose web process counts its objects on request."""

    def __init__(self, processes: Processes, interval_seconds: float, timeout_seconds: float) -> None:
        self.http_port, self.grpc_port = free_port(), free_port()
        MasterClient.__init__(self, self.http_port)
        self.session.headers["Connection"] = "close"  # or its connection would be counted
        self.target = f"{LOCALHOST}:{self.grpc_port}"
        self._counts_file = processes.folder / "counts.json"
        arguments = (self.http_port, self.grpc_port, interval_seconds, timeout_seconds, self._counts_file)
        script = str(Path(counted_master.__file__))
        self.process = processes.start("master", sys.executable, script, *map(str, arguments))
        eventually(self.is_healthy, 20.0)

    def resource_counts(self) -> ResourceCounts:
        """Counts the resources, while no HTTP client is connected."""
        web = self.web_process()
        eventually(lambda: not self._http_connections(web))
        counts = self._counts(web.pid)
        return ResourceCounts(
            files=web.num_fds(),
            threads=web.num_threads(),
            greenlets=counts["greenlets"],
            objects=counts["objects"],
            rss_bytes=web.memory_info().rss,
        )

    def kinds(self) -> dict[str, int]:
        """The most frequent types of objects, to find a leak."""
        return dict(self._counts(self.web_process().pid)["kinds"])

    def _http_connections(self, web: psutil.Process) -> list[object]:
        return [
            connection
            for connection in web.net_connections("tcp")
            if connection.status != psutil.CONN_LISTEN and connection.laddr.port == self.http_port
        ]

    def _counts(self, pid: int) -> Any:
        self._counts_file.unlink(missing_ok=True)
        os.kill(pid, signal.SIGUSR2)
        eventually(self._counts_file.exists)
        return json.loads(self._counts_file.read_text())

    def heartbeats(self) -> float:
        """The number of accepted heartbeats."""
        return self.sample("fleetpulse_heartbeats_received_total")

    def shows_no_worker(self) -> bool:
        """Whether REST and ``/metrics`` show no worker."""
        return self.workers() == {} == self.json("/telemetry") and 'worker_id="' not in self.get("/metrics").text

    def has_returned_to(self, start: ResourceCounts) -> bool:
        """Whether it holds no more than at the start, except memory, which Python and the C library keep."""
        now = self.resource_counts()
        return (
            now.files <= start.files
            and now.threads <= start.threads
            and now.greenlets <= start.greenlets
            and now.objects <= start.objects + ALLOWED_OBJECT_GROWTH
        )


def leave(fleet: RunningProcess, master: CountedMaster) -> None:
    """Stops a fleet and waits until the master shows no worker."""
    fleet.send(signal.SIGTERM)
    assert fleet.wait(30.0) == 0
    eventually(master.shows_no_worker)
