"""``/sd/targets``: the live fleet as scrape targets, for exporters that run on the workers' machines.

The format is Prometheus' HTTP SD: https://prometheus.io/docs/prometheus/latest/http_sd/
"""

import ipaddress
import re
import socket
from collections.abc import Iterator
from typing import Annotated, Any

import falcon
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from fleetpulse.master.addresses import is_loopback
from fleetpulse.master.api.answers import ResponseModel, send_json
from fleetpulse.master.api.queries import Number
from fleetpulse.master.api.validation import query_of
from fleetpulse.master.hub_queue import give_way
from fleetpulse.master.telemetry.manager import TelemetryManager
from fleetpulse.master.telemetry.records import WorkerTelemetry

WORKERS_IN_A_ROW = 256
"""Workers after which other greenlets have their turn."""

_ADDRESS = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_NOT_IN_LABEL_NAMES = re.compile(r"[^A-Za-z0-9_]")
_MAX_FILTERS = 16
_LOCAL_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})
_METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "metadata.azure.internal", "instance-data"})
_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")


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
                give_way()
            if not (telemetry.is_active and labels <= telemetry.registration.labels.items()):
                continue
            address = _address(telemetry)
            if may_be_scraped(address, telemetry.registration.peer_host):
                yield TargetGroup([f"{address}:{port}"], _labels(telemetry))


def _address(telemetry: WorkerTelemetry) -> str:
    """The hostname, or the worker's id where Prometheus would not accept the hostname."""
    hostname = telemetry.registration.hostname
    return hostname if _ADDRESS.fullmatch(hostname) else telemetry.worker_id


def may_be_scraped(address: str, peer_host: str) -> bool:
    """Whether a worker that was connected from ``peer_host`` may name this address, or host, as its own.

    Otherwise it could have Prometheus ask the services of Prometheus' machine, or the cloud's metadata service.
    """
    name = address.lower()
    ip = _ip_address(name)
    if name in _LOCAL_NAMES or name.endswith(".localhost") or (ip is not None and ip.is_loopback):
        return is_loopback(peer_host)
    if name in _METADATA_NAMES:
        return False
    is_special = ip is not None and (ip.is_link_local or ip.is_multicast or ip in _THIS_NETWORK)
    return not is_special or address == peer_host


def _ip_address(name: str) -> ipaddress.IPv4Address | None:
    """Also of ``127.1`` and ``2130706433``, which resolvers accept. A target has no IPv6 address."""
    try:
        return ipaddress.IPv4Address(socket.inet_aton(name))
    except OSError:
        return None


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
