"""A master of one's own: FleetPulse's, with a callback that stores what a site wants to keep of every heartbeat.

    HTTP_PORT=:8080 GRPC_PORT=:50051 READINGS=/var/lib/site/readings.jsonl python own_master.py

Here that is a line of JSON a heartbeat, appended to a file.
"""

import json
import os
import queue
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from fleetpulse.master.addresses import parse_address
from fleetpulse.master.config import MasterConfig, StoreConfig
from fleetpulse.master.server import MasterServer
from fleetpulse.master.telemetry.records import WorkerTelemetry
from fleetpulse.proto.logs import configure_logging

if TYPE_CHECKING:
    from fleetpulse.master.app import Master

_MOST_WAITING = 10_000


class Readings:
    """Appends readings to a file, on a thread of its own.

    The callback runs on the master's event loop, in the greenlet of the worker that was heard, and a write to a disk
    would stop the loop with all its workers. So ``note`` only queues, and a disk that cannot keep up loses readings.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: queue.Queue[str | None] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._write, name="readings")
        self.lost = 0

    def start(self) -> None:
        self._thread.start()

    def note(self, worker_id: str, telemetry: WorkerTelemetry) -> None:
        """Called for every update of a worker. What is not known is ``None``, and null in the file."""
        reading = {"worker_id": worker_id, "time": telemetry.last_update, "cpu_usage": telemetry.cpu_usage}
        try:
            self._waiting.put_nowait(json.dumps(reading))
        except queue.Full:
            self.lost += 1

    def stop(self) -> None:
        """Write what is left."""
        self._waiting.put(None)
        self._thread.join()

    def _write(self) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            while (line := self._waiting.get()) is not None:
                file.write(line + "\n")
                if self._waiting.empty():
                    file.flush()


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    config = MasterConfig(
        store=StoreConfig(data_dir=Path(os.environ["FLEETPULSE_DATA_DIR"])),
        http=parse_address("HTTP_PORT", os.environ.get("HTTP_PORT", ":8080")),
        grpc=parse_address("GRPC_PORT", os.environ.get("GRPC_PORT", ":50051")),
    )
    readings = Readings(Path(os.environ["READINGS"]))

    class OwnServer(MasterServer):
        """Adds the callback where the master is built, in the web process."""

        def build(self) -> "Master":
            master = super().build()
            before = master.telemetry.update_callback

            def note(worker_id: str, telemetry: WorkerTelemetry) -> None:
                # FleetPulse's own history hangs on the callback: it goes first.
                if before is not None:
                    before(worker_id, telemetry)
                readings.note(worker_id, telemetry)

            master.telemetry.set_update_callback(note)
            readings.start()
            return master

        def stop_master(self) -> None:
            super().stop_master()
            readings.stop()

    configure_logging(config.log_level)
    OwnServer(config).run()


if __name__ == "__main__":
    main()
