"""Own metrics out of commands that print Prometheus' text format.

A command may take longer than a heartbeat waits, and costs a process. So each has a thread of its own, which runs it
every so often; a heartbeat carries what the last run said.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors.custom.gathering import Gathering
from fleetpulse.worker.collectors.custom.process import CommandProcess
from fleetpulse.worker.collectors.custom.text import metrics_from_text
from fleetpulse.worker.collectors.custom.wire import BadMetrics

LONGEST_RUN_SECONDS = 10.0
_KILL_SECONDS = 5.0
_STOP_SECONDS = 1.0


class CommandCollector:
    """``command:<name>``. Nothing is run before the first ``collect``, which has nothing yet; ``close`` ends it."""

    def __init__(
        self,
        name: str,
        words: Sequence[str],
        interval_seconds: float,
        environment: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = f"command:{name}"
        self._process = CommandProcess(words, environment)
        self._interval_seconds = interval_seconds
        self._deadline_seconds = min(interval_seconds, LONGEST_RUN_SECONDS)
        self._clock = clock
        self._latest: pb.Heartbeat | str = pb.Heartbeat()
        self._run_began: float | None = None
        self._ending = threading.Event()
        # A daemon: a command that even SIGKILL does not end would keep the worker from ending.
        self._thread = threading.Thread(target=self._run, name=f"own-{self.name}", daemon=True)

    def collect(self) -> pb.Heartbeat:
        """What the last run said. Raises ``BadMetrics`` with what was wrong with it."""
        if self._thread.ident is None and not self._ending.is_set():
            self._thread.start()
        latest, began = self._latest, self._run_began
        if began is not None and self._clock() - began > self._deadline_seconds + _KILL_SECONDS:
            raise BadMetrics(f"was killed after {self._deadline_seconds:g} s, and does not end")
        if isinstance(latest, str):
            raise BadMetrics(latest)
        return latest

    def close(self) -> None:
        """Kill a run under way, and run no more."""
        self._ending.set()
        self._process.stop()
        if self._thread.ident is not None:
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        """Body of the thread. A run begins so long after the one before began."""
        while not self._ending.is_set():
            began = self._run_began = self._clock()
            self._latest = self._said()
            self._run_began = None
            self._ending.wait(max(self._interval_seconds - (self._clock() - began), 0.0))

    def _said(self) -> pb.Heartbeat | str:
        try:
            metrics = metrics_from_text(self._process.output(self._deadline_seconds))
            Gathering().add(metrics)
        except BadMetrics as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - reported; a thread that ended here would not be heard of again
            return f"{type(error).__name__}: {error}"
        return pb.Heartbeat(custom=metrics)
