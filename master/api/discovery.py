"""The live fleet as scrape targets, for exporters that run on the workers' machines.

The format is Prometheus' HTTP SD: https://prometheus.io/docs/prometheus/latest/http_sd/
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any

import falcon
import gevent
import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from fleetpulse.master.api.queries import Number
from fleetpulse.master.api.validation import query_of
from fleetpulse.master.telemetry.manager import TelemetryManager
from fleetpulse.master.telemetry.records import WorkerTelemetry

WORKERS_IN_A_ROW = 256
"""Workers after which other greenlets have their turn."""

_ADDRESS = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_NOT_IN_LABEL_NAMES = re.compile(r"[^A-Za-z0-9_]")
_MAX_FILTERS = 16


def _list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _filter(text: str) -> str:
    if not text.partition("=")[0] or "=" not in text:
        raise ValueError("must be NAME=VALUE, as a worker was started with")
    return text


Filter = Annotated[str, Field(json_schema_extra={"pattern": "^[^=]+="}), AfterValidator(_filter)]


class TargetsQuery(BaseModel):
    """``GET /sd/targets``. Of several ``label`` a worker must have each."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)

    port: Annotated[int, Field(ge=1, le=65535), Number]
    """At which the workers' machines serve an exporter."""
    label: Annotated[list[Filter], Field(max_length=_MAX_FILTERS), BeforeValidator(_list)] = []
    """`NAME=VALUE`, as workers were started with; of several a worker must have each."""

    @property
    def wanted(self) -> set[tuple[str, str]]:
        """The labels, as pairs of name and value."""
        return {(name, value) for name, _, value in (text.partition("=") for text in self.label)}


class Targets:
    """``/sd/targets``: one target for each active worker, at a port that its machine is known to serve."""

    def __init__(self, manager: TelemetryManager) -> None:
        self._manager = manager

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        query = query_of(req, TargetsQuery)
        resp.cache_control = ("no-cache",)
        resp.content_type = falcon.MEDIA_JSON
        resp.data = orjson.dumps(list(self._groups(query.port, query.wanted)))

    on_head = on_get

    def _groups(self, port: int, wanted: set[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        for number, telemetry in enumerate(self._manager.get_all_worker_telemetry().values(), start=1):
            if number % WORKERS_IN_A_ROW == 0:
                gevent.sleep(0)
            if telemetry.is_active and wanted <= telemetry.registration.labels.items():
                yield {"targets": [f"{_address(telemetry)}:{port}"], "labels": _labels(telemetry)}


def _address(telemetry: WorkerTelemetry) -> str:
    """The host name; the id of a worker that has told none, or one that Prometheus would not take."""
    hostname = telemetry.registration.hostname
    return hostname if _ADDRESS.fullmatch(hostname) else telemetry.worker_id


def _labels(telemetry: WorkerTelemetry) -> dict[str, str]:
    """Those that every series of the target gets, and as ``__meta_`` those that a relabelling may choose from."""
    registration = telemetry.registration
    own = {_NOT_IN_LABEL_NAMES.sub("_", name): value for name, value in registration.labels.items()}
    return {
        "worker_id": telemetry.worker_id,
        "hostname": registration.hostname,
        **{f"__meta_fleetpulse_label_{name}": value for name, value in own.items()},
    }
