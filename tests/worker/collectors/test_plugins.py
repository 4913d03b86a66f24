"""worker.collectors.plugins"""

from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints

import pytest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from fleetpulse.worker.collectors.custom_metrics import InvalidMetrics, InvalidSource
from fleetpulse.worker.collectors.plugins import MAX_PLUGINS, PLUGINS_GROUP, PluginCollector, enabled_plugins


class Sensors:
    constructed = 0

    def __init__(self) -> None:
        type(self).constructed += 1
        self._collects = 0

    def collect(self) -> Iterator[Metric]:
        self._collects += 1
        yield GaugeMetricFamily("collects", "How often.", value=self._collects)


def one() -> list[Metric]:
    return [GaugeMetricFamily("one", "", value=1)]


class Broken:
    def __init__(self) -> None:
        raise RuntimeError("no bus")


def values(collector: PluginCollector) -> list[tuple[str, float]]:
    return [(metric.name, metric.samples[0].value) for metric in collector.collect().custom]


def test_class_is_constructed_once_by_the_first_collect() -> None:
    before = Sensors.constructed
    collector = PluginCollector("sensors", lambda: Sensors)
    assert collector.name == "plugin:sensors"
    assert Sensors.constructed == before
    assert [values(collector), values(collector)] == [[("collects", 1.0)], [("collects", 2.0)]]
    assert Sensors.constructed == before + 1


@pytest.mark.parametrize("plugin", [one, Sensors()])
def test_function_or_object_is_used_without_construction(plugin: object) -> None:
    assert values(PluginCollector("x", lambda: plugin))[0][1] == 1.0


def test_failed_construction_is_reported_and_not_tried_again() -> None:
    tries: list[type] = []

    def load() -> type:
        tries.append(Broken)
        return Broken

    collector = PluginCollector("x", load)
    with pytest.raises(RuntimeError, match="no bus"):
        collector.collect()
    with pytest.raises(InvalidMetrics, match="cannot be loaded: RuntimeError: no bus"):
        collector.collect()
    assert len(tries) == 1


def test_object_that_is_neither_callable_nor_a_collector_is_refused() -> None:
    collector = PluginCollector("x", lambda: 7)
    for _ in range(2):
        with pytest.raises(InvalidMetrics, match="a int is neither a function"):
            collector.collect()


def entry_points(*names: str) -> EntryPoints:
    return EntryPoints(EntryPoint(name, "builtins:object", PLUGINS_GROUP) for name in names)


def test_plugins_are_switched_off_by_name() -> None:
    names = [f"p{n:02}" for n in range(MAX_PLUGINS + 1)]
    with pytest.raises(InvalidSource, match="17 plug-ins"):
        enabled_plugins(entry_points(*names), ())
    assert list(enabled_plugins(entry_points(*names), ["p00"])) == names[1:]
    with pytest.raises(InvalidSource, match="plug-in 'a b'"):
        enabled_plugins(entry_points("a b"), ())
