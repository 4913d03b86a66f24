"""worker.simulation.own_metrics"""

import itertools

import pytest

from fleetpulse.proto.rules import MAX_CUSTOM_SAMPLES
from fleetpulse.worker.collectors.custom_metrics import CustomMetricsBudget
from fleetpulse.worker.simulation.machine import SimulatedMachine
from tests.worker.simulation.test_machine import NOON, machine, readings


@pytest.mark.parametrize("samples", [1, 2, 5, MAX_CUSTOM_SAMPLES])
def test_so_many_samples_that_the_wire_takes(samples: int) -> None:
    heartbeats = readings(SimulatedMachine("sim-1", 2, 1, NOON, own_samples=samples), 10)
    for heartbeat in heartbeats:
        assert sum(len(metric.samples) for metric in heartbeat.custom) == samples
        CustomMetricsBudget().add(heartbeat.custom)
    for earlier, later in itertools.pairwise(heartbeats):
        counters = [
            [s.value for m in beat.custom if m.name.endswith("_total") for s in m.samples] for beat in (earlier, later)
        ]
        assert all(after >= before for before, after in zip(*counters, strict=True))


def test_the_rest_of_the_machine_is_as_without() -> None:
    beats = readings(SimulatedMachine("sim-1", 2, 1, NOON, own_samples=4), 5)
    for beat in beats:
        beat.ClearField("custom")
    assert beats == readings(machine(), 5)
