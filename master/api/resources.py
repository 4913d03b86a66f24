"""What each path answers."""

import time
import uuid
from collections.abc import Callable, Mapping

import falcon
import orjson

from fleetpulse.master.api.discovery import Targets
from fleetpulse.master.api.views import FleetViews
from fleetpulse.master.telemetry.manager import TelemetryManager

HealthCheck = Callable[[], str | None]
"""Says what is wrong with a part of the master, or ``None``."""

_BOOT_ID = uuid.uuid4().hex[:12]


def _answer(req: falcon.Request, resp: falcon.Response, pieces: list[bytes], revision: int) -> None:
    """JSON with a weak ETag of the table's revision, or 304 when the client has that one."""
    etag = falcon.ETag(f"{_BOOT_ID}-{revision}")
    etag.is_weak = True
    resp.set_header("ETag", etag.dumps())
    resp.cache_control = ("no-cache",)
    if not {etag, "*"}.isdisjoint(req.if_none_match or ()):
        resp.status = falcon.HTTP_304
        return
    resp.content_type = falcon.MEDIA_JSON
    # A list, so that it can be compressed on its way.
    resp.stream = pieces
    resp.content_length = sum(map(len, pieces))


class Health:
    """``/health``: 200 while every part works, 503 with what does not."""

    def __init__(self, checks: Mapping[str, HealthCheck], version: str) -> None:
        self._checks = checks
        self._version = version

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        failing = {part: why for part, check in self._checks.items() if (why := check()) is not None}
        body: dict[str, object] = {
            "status": "unhealthy" if failing else "healthy",
            "time": int(time.time()),
            "version": self._version,
        }
        if failing:
            body["failing"] = failing
            resp.status = falcon.HTTP_503
        resp.cache_control = ("no-store",)
        resp.data = orjson.dumps(body)
        resp.content_type = falcon.MEDIA_JSON

    on_head = on_get


class Fleet:
    """A view of all workers."""

    def __init__(self, manager: TelemetryManager, view: Callable[[], list[bytes]]) -> None:
        self._manager = manager
        self._view = view

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        # Read first: a view may come out newer than its tag, which costs an answer, but never older.
        revision = self._manager.revision
        _answer(req, resp, self._view(), revision)

    on_head = on_get


class OneWorker:
    """A view of one worker."""

    def __init__(self, manager: TelemetryManager, view: Callable[[str], bytes]) -> None:
        self._manager = manager
        self._view = view

    def on_get(self, req: falcon.Request, resp: falcon.Response, worker_id: str) -> None:
        revision = self._manager.get_worker_telemetry(worker_id).revision
        _answer(req, resp, [self._view(worker_id)], revision)

    on_head = on_get


class ManagedWorker(OneWorker):
    """``/api/workers/{worker_id}``: a worker's details; one that is gone can be forgotten."""

    def on_delete(self, _req: falcon.Request, resp: falcon.Response, worker_id: str) -> None:
        self._manager.forget_worker(worker_id)
        resp.status = falcon.HTTP_204


def fleet_resources(manager: TelemetryManager, views: FleetViews, health: Health) -> dict[str, object]:
    """What answers at each path about the master and its workers."""
    return {
        "/health": health,
        "/telemetry": Fleet(manager, views.all_records),
        "/telemetry/{worker_id}": OneWorker(manager, views.record),
        "/workers": Fleet(manager, views.all_summaries),
        "/api/workers": Fleet(manager, views.all_details),
        "/api/workers/{worker_id}": ManagedWorker(manager, views.details),
        "/api/workers/{worker_id}/metrics": OneWorker(manager, views.metrics),
        "/sd/targets": Targets(manager),
    }
