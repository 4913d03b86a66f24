"""worker.collectors.custom.plugins"""

from collections.abc import Iterator

import pytest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from fleetpulse.worker.collectors.custom.plugins import PluginCollector
from fleetpulse.worker.collectors.custom.wire import BadMetrics


class Sensors:
    constructed = 0

    def __init__(self) -> None:
        type(self).constructed += 1
        self._asked = 0

    def collect(self) -> Iterator[Metric]:
        self._asked += 1
        yield GaugeMetricFamily("asked", "How often.", value=self._asked)


def one() -> list[Metric]:
    return [GaugeMetricFamily("one", "", value=1)]


class Broken:
    def __init__(self) -> None:
        raise RuntimeError("no bus")


def values(collector: PluginCollector) -> list[tuple[str, float]]:
    return [(metric.name, metric.samples[0].value) for metric in collector.collect().custom]


def test_a_class_is_constructed_once_and_no_sooner_than_it_is_asked() -> None:
    before = Sensors.constructed
    collector = PluginCollector("sensors", lambda: Sensors)
    assert collector.name == "plugin:sensors"
    assert Sensors.constructed == before
    assert [values(collector), values(collector)] == [[("asked", 1.0)], [("asked", 2.0)]]
    assert Sensors.constructed == before + 1


@pytest.mark.parametrize("named", [one, Sensors()])
def test_a_function_or_an_object_is_asked_as_it_is(named: object) -> None:
    assert values(PluginCollector("x", lambda: named))[0][1] == 1.0


def test_what_cannot_be_constructed_says_so_and_is_not_tried_again() -> None:
    tries: list[type] = []

    def load() -> type:
        tries.append(Broken)
        return Broken

    collector = PluginCollector("x", load)
    with pytest.raises(RuntimeError, match="no bus"):
        collector.collect()
    with pytest.raises(BadMetrics, match="cannot be loaded: RuntimeError: no bus"):
        collector.collect()
    assert len(tries) == 1


def test_what_is_no_plugin() -> None:
    collector = PluginCollector("x", lambda: 7)
    for _ in range(2):
        with pytest.raises(BadMetrics, match="a int is neither a function"):
            collector.collect()
