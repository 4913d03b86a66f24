"""master.api.own_metrics, in the answers about a worker"""

import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.master.web import Web

TEMPERATURES = pb.CustomMetric(
    name="inlet_celsius",
    type=pb.CUSTOM_TYPE_GAUGE,
    label_names=["side", "rack"],
    samples=[pb.CustomSample(label_values=["left", "7"], value=21.5), pb.CustomSample(label_values=["", "7"], value=0)],
)
RUNS = pb.CustomMetric(name="runs_total", type=pb.CUSTOM_TYPE_COUNTER, samples=[pb.CustomSample(value=3)])


@pytest.mark.parametrize("path", ["/telemetry/rack-7", "/api/workers/rack-7/metrics"])
def test_every_sample_is_complete(web: Web, path: str) -> None:
    web.fleet.beat("rack-7", custom=[TEMPERATURES, RUNS])
    assert web.json(path)["custom"] == [
        {"name": "inlet_celsius", "type": "gauge", "labels": {"rack": "7", "side": "left"}, "value": 21.5},
        {"name": "inlet_celsius", "type": "gauge", "labels": {"rack": "7"}, "value": 0.0},
        {"name": "runs_total", "type": "counter", "labels": {}, "value": 3.0},
    ]


def test_they_end_with_the_heartbeat_that_has_none(web: Web) -> None:
    web.fleet.beat("rack-7", custom=[RUNS])
    web.fleet.beat("rack-7")
    assert web.json("/telemetry")["rack-7"]["custom"] == []
