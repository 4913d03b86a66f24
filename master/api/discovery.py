"""``/sd/targets``: the live fleet as scrape targets, for exporters that run on the workers' machines.

The format is Prometheus' HTTP SD: https://prometheus.io/docs/prometheus/latest/http_sd/
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any

import falcon
import gevent
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from fleetpulse.master.api.answers import ResponseModel, send_json
from fleetpulse.master.api.queries import Number
from fleetpulse.master.api.validation import query_of
from fleetpulse.master.telemetry.manager import TelemetryManager
from fleetpulse.master.telemetry.records import WorkerTelemetry

WORKERS_IN_A_ROW = 256
"""Workers after which other greenlets have their turn."""

_ADDRESS = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_NOT_IN_LABEL_NAMES = re.compile(r"[^A-Za-z0-9_]")
_MAX_FILTERS = 16


class TargetGroup(ResponseModel):
    """A target as Prometheus' HTTP service discovery has it."""

    targets: list[str]
    labels: dict[str, str]


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _check_filter(text: str) -> str:
    if not text.partition("=")[0] or "=" not in text:
        raise ValueError("must be NAME=VALUE, as a worker was started with")
    return text


Filter = Annotated[str, Field(json_schema_extra={"pattern": "^[^=]+="}), AfterValidator(_check_filter)]


class TargetsQuery(BaseModel):
    """``GET /sd/targets``. Of several ``label`` a worker must have each."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)

    port: Annotated[int, Field(ge=1, le=65535), Number]
    """At which the workers' machines serve an exporter."""
    label: Annotated[list[Filter], Field(max_length=_MAX_FILTERS), BeforeValidator(_as_list)] = []
    """`NAME=VALUE`, as workers were started with; of several a worker must have each."""

    @property
    def labels(self) -> set[tuple[str, str]]:
        """Pairs of name and value."""
        return {(name, value) for name, _, value in (text.partition("=") for text in self.label)}


class Targets:
    """``/sd/targets``: one target for each active worker, at a port that its machine is known to serve."""

    def __init__(self, manager: TelemetryManager) -> None:
        self._manager = manager

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        query = query_of(req, TargetsQuery)
        send_json(resp, list(self._groups(query.port, query.labels)))

    on_head = on_get

    def _groups(self, port: int, labels: set[tuple[str, str]]) -> Iterator[TargetGroup]:
        for number, telemetry in enumerate(self._manager.get_all_worker_telemetry().values(), start=1):
            if number % WORKERS_IN_A_ROW == 0:
                gevent.sleep(0)
            if telemetry.is_active and labels <= telemetry.registration.labels.items():
                yield TargetGroup([f"{_address(telemetry)}:{port}"], _labels(telemetry))


def _address(telemetry: WorkerTelemetry) -> str:
    """The hostname, or the worker's id where Prometheus would not accept the hostname."""
    hostname = telemetry.registration.hostname
    return hostname if _ADDRESS.fullmatch(hostname) else telemetry.worker_id


def _labels(telemetry: WorkerTelemetry) -> dict[str, str]:
    """The labels of every series of the target, and as ``__meta_`` those that a relabelling may choose from."""
    registration = telemetry.registration
    return {
        "worker_id": telemetry.worker_id,
        "hostname": registration.hostname,
        **{
            f"__meta_fleetpulse_label_{_NOT_IN_LABEL_NAMES.sub('_', name)}": value
            for name, value in registration.labels.items()
        },
    }
