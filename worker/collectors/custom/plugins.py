"""Own metrics out of Python code that is installed beside the worker.

An entry point of the group ``fleetpulse.collectors`` names either a class, which is constructed once, without
arguments, and whose ``collect()`` is called for every heartbeat, or a function, which is called for every heartbeat.
Both return metric families of prometheus_client (``GaugeMetricFamily``, ``CounterMetricFamily``), so a collector that
was written for that library is a plug-in as it is.

Plug-ins are loaded, constructed and called on a thread of their own, with the same deadline as every collector. They
are code of the worker's process: what they break in it (memory, the interpreter) is broken.
"""

from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoints
from typing import Any

from prometheus_client.metrics_core import Metric

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors.custom.wire import BadMetrics, to_wire

PLUGINS_GROUP = "fleetpulse.collectors"


class PluginCollector:
    """``plugin:<name>``. What cannot be loaded or constructed stays so until the worker is started anew."""

    def __init__(self, name: str, load: Callable[[], Any]) -> None:
        """``load`` gives what the entry point names; it is called by the first ``collect``."""
        self.name = f"plugin:{name}"
        self._load = load
        self._read: Callable[[], Iterable[Metric]] | None = None
        self._broken: str | None = None

    def collect(self) -> pb.Heartbeat:
        """Raises ``BadMetrics``, and whatever the plug-in does."""
        if self._broken is not None:
            raise BadMetrics(self._broken)
        if self._read is None:
            self._read = self._construct()
        return pb.Heartbeat(custom=to_wire(self._read()))

    def _construct(self) -> Callable[[], Iterable[Metric]]:
        try:
            named = self._load()
            made = named() if isinstance(named, type) else named
        except BaseException as error:
            self._broken = f"cannot be loaded: {type(error).__name__}: {error}"
            raise
        read = getattr(made, "collect", made)
        if not callable(read):
            self._broken = f"a {type(made).__name__} is neither a function nor has it a method collect"
            raise BadMetrics(self._broken)
        return read  # type: ignore[no-any-return]  # what it returns is checked when it does


def installed_plugins(installed: EntryPoints) -> dict[str, Callable[[], Any]]:
    """How to load each plug-in, by name, in order."""
    return {entry.name: entry.load for entry in sorted(installed.select(group=PLUGINS_GROUP))}
