"""How much a master's web process holds, and fleets that come and go."""

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

OBJECTS_AT_WILL = 100
"""By how much the number of objects moves from one moment to the next; what a fleet leaves behind is more."""


class Level(NamedTuple):
    """What the web process holds at one moment."""

    files: int
    threads: int
    greenlets: int
    objects: int
    rss_bytes: int


class CountedMaster(Master):
    """A master whose web process can be asked what it holds."""

    def __init__(self, processes: Processes, interval_seconds: float, timeout_seconds: float) -> None:
        self.http_port, self.grpc_port = free_port(), free_port()
        MasterClient.__init__(self, self.http_port)
        self.session.headers["Connection"] = "close"  # or it would count among what the master holds
        self.target = f"{LOCALHOST}:{self.grpc_port}"
        self._counts_file = processes.folder / "counts.json"
        arguments = (self.http_port, self.grpc_port, interval_seconds, timeout_seconds, self._counts_file)
        script = str(Path(counted_master.__file__))
        self.process = processes.start("master", sys.executable, script, *map(str, arguments))
        eventually(self.is_healthy, 20.0)

    def level(self) -> Level:
        """What it holds now, when no client is connected to it."""
        web = self.web_process()
        eventually(lambda: not self._http_connections(web))
        counts = self._counts(web.pid)
        return Level(
            files=web.num_fds(),
            threads=web.num_threads(),
            greenlets=counts["greenlets"],
            objects=counts["objects"],
            rss_bytes=web.memory_info().rss,
        )

    def kinds(self) -> dict[str, int]:
        """The most frequent kinds of objects, to tell what has leaked."""
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
        """How many it has accepted."""
        return self.sample("fleetpulse_heartbeats_received_total")

    def shows_no_worker(self) -> bool:
        """No trace of any worker in REST or on ``/metrics``."""
        return self.workers() == {} == self.json("/telemetry") and 'worker_id="' not in self.get("/metrics").text

    def is_back_at(self, start: Level) -> bool:
        """It holds no more than it did, but for memory that was freed and is kept by Python and the C library."""
        now = self.level()
        return (
            now.files <= start.files
            and now.threads <= start.threads
            and now.greenlets <= start.greenlets
            and now.objects <= start.objects + OBJECTS_AT_WILL
        )


def leave(fleet: RunningProcess, master: CountedMaster) -> None:
    """Let a fleet say goodbye, until nothing of it is left to see."""
    fleet.send(signal.SIGTERM)
    assert fleet.wait(30.0) == 0
    eventually(master.shows_no_worker)
