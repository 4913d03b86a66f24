"""A custom master with a callback that appends a line of JSON to a file for every heartbeat.

HTTP_PORT=:8080 GRPC_PORT=:50051 READINGS=/var/lib/site/readings.jsonl python custom_master.py
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

_MAX_QUEUED = 10_000


class ReadingsWriter:
    """Appends readings to a file, on its own thread.

    The callback runs on the master's event loop, and a write to a disk would block all workers. ``add`` therefore only
    queues. If the disk is too slow, readings are lost and counted in ``lost``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: queue.Queue[str | None] = queue.Queue(_MAX_QUEUED)
        self._thread = threading.Thread(target=self._write, name="readings")
        self.lost = 0

    def start(self) -> None:
        self._thread.start()

    def add(self, worker_id: str, telemetry: WorkerTelemetry) -> None:
        """Called for every update of a worker. An unknown reading is null in the file."""
        reading = {"worker_id": worker_id, "time": telemetry.last_update, "cpu_usage": telemetry.cpu_usage}
        try:
            self._queue.put_nowait(json.dumps(reading))
        except queue.Full:
            self.lost += 1

    def stop(self) -> None:
        """Writes the rest of the queue."""
        self._queue.put(None)
        self._thread.join()

    def _write(self) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            while (line := self._queue.get()) is not None:
                file.write(line + "\n")
                if self._queue.empty():
                    file.flush()


def main() -> None:
    """Serves until SIGTERM or Ctrl-C."""
    config = MasterConfig(
        store=StoreConfig(data_dir=Path(os.environ["FLEETPULSE_DATA_DIR"])),
        http=parse_address("HTTP_PORT", os.environ.get("HTTP_PORT", ":8080")),
        grpc=parse_address("GRPC_PORT", os.environ.get("GRPC_PORT", ":50051")),
    )
    readings = ReadingsWriter(Path(os.environ["READINGS"]))

    class CustomServer(MasterServer):
        """Adds the callback where the master is built, in the web process."""

        def build(self) -> "Master":
            master = super().build()
            history = master.telemetry.update_callback

            def on_update(worker_id: str, telemetry: WorkerTelemetry) -> None:
                if history is not None:
                    history(worker_id, telemetry)
                readings.add(worker_id, telemetry)

            master.telemetry.set_update_callback(on_update)
            readings.start()
            return master

        def stop_master(self) -> None:
            super().stop_master()
            readings.stop()

    configure_logging(config.log_level)
    CustomServer(config).run()


if __name__ == "__main__":
    main()
