"""``GET /metrics``: Prometheus text or OpenMetrics, as the scraper asks."""

import time

import falcon
from prometheus_client.exposition import choose_encoder

from master.instruments import Instruments
from master.metrics.exposition import FleetExposition

_OPENMETRICS = "application/openmetrics-text"


class MetricsResource:
    """The fleet's series and the master's own, in one answer."""

    def __init__(self, fleet: FleetExposition, instruments: Instruments) -> None:
        self._fleet = fleet
        self._instruments = instruments

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        started = time.perf_counter()
        encode, content_type = choose_encoder(req.get_header("Accept") or "")
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
