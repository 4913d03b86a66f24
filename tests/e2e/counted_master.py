"""A master that counts the objects of its web process on SIGUSR2.

counted_master.py HTTP_PORT GRPC_PORT INTERVAL_SECONDS TIMEOUT_SECONDS COUNTS_FILE

It keeps no history, which would release a worker only with the end of the current row, up to three hours later.
"""

import gc
import json
import signal
import sys
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import greenlet

from fleetpulse.master.addresses import Address
from fleetpulse.master.config import HistoryConfig, LeaseConfig, MasterConfig, StoreConfig
from fleetpulse.master.server import MasterServer
from fleetpulse.proto.logs import configure_logging


class CountedServer(MasterServer):
    """``python -m fleetpulse.master`` that handles the signal."""

    def __init__(self, config: MasterConfig, counts_file: Path) -> None:
        self._counts_file = counts_file
        super().__init__(config)

    def load(self) -> Any:
        application = super().load()
        signal.signal(signal.SIGUSR2, self._write_counts)
        return application

    def _write_counts(self, _number: int, _frame: Any) -> None:
        gc.collect()
        # Weak references hold nothing, and libraries remove dead ones only now and then.
        objects = [item for item in gc.get_objects() if not isinstance(item, weakref.ref)]
        counts = {
            "greenlets": sum(isinstance(item, greenlet.greenlet) and not item.dead for item in objects),
            "objects": len(objects),
            "kinds": Counter(type(item).__qualname__ for item in objects).most_common(50),
        }
        unfinished = self._counts_file.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(counts))
        unfinished.replace(self._counts_file)


if __name__ == "__main__":
    http_port, grpc_port, interval, timeout, counts_file = sys.argv[1:]
    terms = LeaseConfig(heartbeat_interval_seconds=float(interval), inactivity_timeout_seconds=float(timeout))
    configure_logging("info")
    CountedServer(
        MasterConfig(
            StoreConfig(Path.cwd() / "data"),
            Address("127.0.0.1", int(http_port)),
            Address("127.0.0.1", int(grpc_port)),
            terms,
            HistoryConfig(short_seconds=None, long_seconds=None),
        ),
        Path(counts_file),
    ).run()
