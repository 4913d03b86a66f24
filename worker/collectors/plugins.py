"""Custom metrics from plug-ins: Python code that is installed beside the worker.

An entry point of the group ``fleetpulse.collectors`` names a class or a function. A class is constructed once, without
arguments, and its ``collect()`` is called for every heartbeat; a function is called for every heartbeat. Both return
metric families of prometheus_client (``GaugeMetricFamily``, ``CounterMetricFamily``), so a collector written for that
library is a plug-in as it is.

Each plug-in has a thread and the deadline of every collector. It runs in the worker's process and can break it.
"""

from collections.abc import Callable, Collection, Iterable
from importlib.metadata import EntryPoints
from typing import Any

from prometheus_client.metrics_core import Metric

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors.custom_metrics import (
    InvalidMetrics,
    InvalidSource,
    check_source_name,
    metrics_from_families,
)

PLUGINS_GROUP = "fleetpulse.collectors"
MAX_PLUGINS = 16
"""A heartbeat has room for 64 reports of collectors: commands, files and plug-ins among them."""


class PluginCollector:
    """``plugin:<name>``. A plug-in that cannot be loaded or constructed stays broken until the worker restarts."""

    def __init__(self, name: str, load: Callable[[], Any]) -> None:
        """``load`` returns what the entry point names; the first ``collect`` calls it."""
        self.name = f"plugin:{name}"
        self._load = load
        self._read: Callable[[], Iterable[Metric]] | None = None
        self._load_error: str | None = None

    def collect(self) -> pb.Heartbeat:
        """Raises ``InvalidMetrics``, and whatever the plug-in raises."""
        if self._load_error is not None:
            raise InvalidMetrics(self._load_error)
        if self._read is None:
            self._read = self._construct()
        return pb.Heartbeat(custom=metrics_from_families(self._read()))

    def _construct(self) -> Callable[[], Iterable[Metric]]:
        try:
            loaded = self._load()
            plugin = loaded() if isinstance(loaded, type) else loaded
        except BaseException as error:
            self._load_error = f"cannot be loaded: {type(error).__name__}: {error}"
            raise
        read = getattr(plugin, "collect", plugin)
        if not callable(read):
            self._load_error = f"a {type(plugin).__name__} is neither a function nor has it a method collect"
            raise InvalidMetrics(self._load_error)
        return read  # type: ignore[no-any-return]  # what it returns is checked when it does


def enabled_plugins(installed: EntryPoints, skipped: Collection[str]) -> dict[str, Callable[[], Any]]:
    """By the name of each plug-in that is not switched off, how to load it; sorted. Raises ``InvalidSource``."""
    enabled = {
        entry.name: entry.load for entry in sorted(installed.select(group=PLUGINS_GROUP)) if entry.name not in skipped
    }
    for name in enabled:
        check_source_name("plug-in", name)
    if len(enabled) > MAX_PLUGINS:
        raise InvalidSource(f"{len(enabled)} plug-ins are installed; at most {MAX_PLUGINS} are asked: switch some off")
    return enabled
