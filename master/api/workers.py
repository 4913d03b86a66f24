"""The paths about the workers, and ``/health``."""

import time
import uuid
from collections.abc import Callable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Literal

import falcon

from fleetpulse.master.api.answers import not_modified, send_json
from fleetpulse.master.api.discovery import Targets
from fleetpulse.master.api.queries import MetricsQuery
from fleetpulse.master.api.validation import query_of
from fleetpulse.master.api.views import FleetViews
from fleetpulse.master.api.worker_answers import Health
from fleetpulse.master.telemetry.manager import TelemetryManager

HealthCheck = Callable[[], str | None]
"""Returns what is wrong with a part of the master, or ``None``."""

_NO_CHECKS: Mapping[str, HealthCheck] = MappingProxyType({})
_CORES_SECONDS = 60.0
_BOOT_ID = uuid.uuid4().hex[:12]


class HealthResource:
    """``/health``: 200 while every part works, 503 with what does not. Still 200, but degraded, under overload."""

    def __init__(
        self, checks: Mapping[str, HealthCheck], version: str, warnings: Mapping[str, HealthCheck] = _NO_CHECKS
    ) -> None:
        """``checks`` and ``warnings`` by part: what makes it unhealthy, and what only degraded."""
        self._checks = checks
        self._warnings = warnings
        self._version = version

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        state: Literal["healthy", "degraded", "unhealthy"] = "unhealthy"
        failing, status = _found(self._checks), HTTPStatus.SERVICE_UNAVAILABLE
        if not failing:
            status = HTTPStatus.OK
            failing = _found(self._warnings)
            state = "degraded" if failing else "healthy"
        health = Health(state, int(time.time()), self._version, failing)
        send_json(resp, health, status=status, cache_control="no-store")

    on_head = on_get


def _found(checks: Mapping[str, HealthCheck]) -> dict[str, str]:
    return {part: error for part, check in checks.items() if (error := check()) is not None}


class AllWorkers:
    """A view of all workers."""

    def __init__(self, manager: TelemetryManager, view: Callable[[], list[bytes]]) -> None:
        self._manager = manager
        self._view = view

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        # Read first: a view may come out newer than its tag, which costs an answer, but never older.
        revision = self._manager.revision
        _send(req, resp, self._view(), revision)

    on_head = on_get


class OneWorker:
    """A view of one worker."""

    def __init__(self, manager: TelemetryManager, view: Callable[[str], bytes]) -> None:
        self._manager = manager
        self._view = view

    def on_get(self, req: falcon.Request, resp: falcon.Response, worker_id: str) -> None:
        revision = self._manager.get_worker_telemetry(worker_id).revision
        _send(req, resp, [self._view(worker_id)], revision)

    on_head = on_get


class ManagedWorker(OneWorker):
    """``/api/workers/{worker_id}``: a worker's details; one that is gone can be forgotten."""

    def on_delete(self, _req: falcon.Request, resp: falcon.Response, worker_id: str) -> None:
        self._manager.forget_worker(worker_id)
        resp.status = falcon.HTTP_204


class MetricsOfWorker:
    """``/api/workers/{worker_id}/metrics``: the readings, on request with those of each core."""

    def __init__(
        self, manager: TelemetryManager, views: FleetViews, ask_for_cores: Callable[[str, float], None]
    ) -> None:
        """``ask_for_cores`` has the worker of an id report its cores for some seconds."""
        self._manager, self._views, self._ask_for_cores = manager, views, ask_for_cores

    def on_get(self, req: falcon.Request, resp: falcon.Response, worker_id: str) -> None:
        revision = self._manager.get_worker_telemetry(worker_id).revision
        per_core = "per_core" in req.params and query_of(req, MetricsQuery).per_core
        if per_core:
            self._ask_for_cores(worker_id, _CORES_SECONDS)
        _send(req, resp, [self._views.metrics(worker_id, per_core=per_core)], revision)

    on_head = on_get


def worker_resources(
    manager: TelemetryManager,
    views: FleetViews,
    health: HealthResource,
    ask_for_cores: Callable[[str, float], None],
) -> dict[str, object]:
    """The resources of the paths about the master and its workers."""
    return {
        "/health": health,
        "/telemetry": AllWorkers(manager, views.all_records),
        "/telemetry/{worker_id}": OneWorker(manager, views.record),
        "/workers": AllWorkers(manager, views.all_summaries),
        "/api/workers": AllWorkers(manager, views.all_details),
        "/api/workers/{worker_id}": ManagedWorker(manager, views.details),
        "/api/workers/{worker_id}/metrics": MetricsOfWorker(manager, views, ask_for_cores),
        "/sd/targets": Targets(manager),
    }


def _send(req: falcon.Request, resp: falcon.Response, pieces: list[bytes], revision: int) -> None:
    """JSON with a weak ETag of the table's revision, or 304 when the client has that one."""
    if not_modified(req, resp, f"{_BOOT_ID}-{revision}"):
        return
    resp.content_type = falcon.MEDIA_JSON
    resp.stream = pieces
