"""The fleet in numbers, which the page shows above everything else."""

import falcon
import gevent
import orjson

from fleetpulse.master.instruments import Instruments
from fleetpulse.master.tasks.records import TaskStatus
from fleetpulse.master.telemetry.manager import TelemetryManager

WORKERS_IN_A_ROW = 1024
"""Counted, after which other greenlets have their turn."""


class Overview:
    """``/api/overview``."""

    def __init__(self, telemetry: TelemetryManager, instruments: Instruments) -> None:
        self._telemetry = telemetry
        self._tasks = instruments.tasks.tasks

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        resp.content_type = falcon.MEDIA_JSON
        resp.cache_control = ("no-store",)
        resp.data = orjson.dumps({"workers": self._worker_counts(), "tasks": self._task_counts()})

    on_head = on_get

    def _worker_counts(self) -> dict[str, int]:
        counts = {"active": 0, "inactive": 0, "draining": 0}
        for number, worker in enumerate(self._telemetry.get_all_worker_telemetry().values(), start=1):
            if number % WORKERS_IN_A_ROW == 0:
                gevent.sleep(0)
            counts["active" if worker.is_active else "inactive"] += 1
            counts["draining"] += worker.allocation.drain_reason is not None
        return counts

    def _task_counts(self) -> dict[str, int]:
        counts = {status.value: 0 for status in TaskStatus}
        for family in self._tasks.collect():
            for sample in family.samples:
                counts[sample.labels["status"]] = int(sample.value)
        return counts
