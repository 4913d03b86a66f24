"""``GET /metrics``: Prometheus text or OpenMetrics, as the scraper asks."""

import time
from collections.abc import Callable

import falcon
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest
from prometheus_client.registry import Collector

from fleetpulse.master.instruments import Instruments
from fleetpulse.master.metrics.exposition import FleetExposition

_OPENMETRICS = "application/openmetrics-text"


class MetricsResource:
    """The fleet's series and the master's own, in one answer."""

    def __init__(self, fleet: FleetExposition, instruments: Instruments) -> None:
        self._fleet = fleet
        self._instruments = instruments

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        started = time.perf_counter()
        encode, content_type = _encoder_for(req.get_header("Accept") or "")
        parts = list(self._fleet.chunks(openmetrics=content_type.startswith(_OPENMETRICS)))
        # The master's own part goes last: in OpenMetrics it brings the "# EOF" that must end the text.
        parts.append(encode(self._instruments.registry))
        resp.content_type = content_type
        resp.append_header("Vary", "Accept")
        # Not joined: that would copy the whole text once more. A list, so that it can be compressed on its way.
        resp.stream = parts
        resp.content_length = sum(map(len, parts))
        self._instruments.exposition.duration.observe(time.perf_counter() - started)

    on_head = on_get


def _encoder_for(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    """What encodes, and the type of the answer; plain text for a version that is none."""
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):
        return generate_latest, CONTENT_TYPE_PLAIN_0_0_4
