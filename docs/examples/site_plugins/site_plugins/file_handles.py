"""A custom metric: the open files of the machine, and their limit."""

from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric


class FileHandles:
    """A plug-in. The worker constructs it once, without arguments, and calls ``collect`` for every heartbeat."""

    def __init__(self, source: Path = Path("/proc/sys/fs/file-nr")) -> None:
        self._source = source

    def collect(self) -> Iterator[Metric]:
        """Raises ``OSError`` if the file cannot be read; the worker reports it."""
        used, _, limit = map(int, self._source.read_text().split())
        yield GaugeMetricFamily("file_handles_used", "Open files of the whole machine.", value=used)
        yield GaugeMetricFamily("file_handles_limit", "Files that may be open at once.", value=limit)
