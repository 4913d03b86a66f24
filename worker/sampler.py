"""Makes one heartbeat of what the collectors read in time.

A collector can hang for ever in a system call (a lost filesystem, a driver). That must not delay a heartbeat: a worker
whose heartbeats stop is taken for dead. So each collector has a thread of its own and a deadline.
"""

import dataclasses
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.cleaning import clean, clean_text
from fleetpulse.proto.fields import Text
from fleetpulse.worker.collectors import Collector, CollectorError, printable
from fleetpulse.worker.collectors.custom_metrics import CustomMetricsBudget

_LOGGER = logging.getLogger(__name__)

ERROR_MAX_LENGTH = 200
"""Characters of a collector's error that a heartbeat carries."""

_ERROR = Text(ERROR_MAX_LENGTH)
_STOP_GRACE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class _Result:
    """Of one call of one collector. There are no fields where the call raised."""

    thread: "_CollectorThread"
    round_number: int
    started_at: float
    duration_seconds: float
    fields: pb.Heartbeat
    error: BaseException | None


class _CollectorThread(threading.Thread):
    """Waits for a round, collects, puts the result into a queue and waits again. ``None`` for a round ends it."""

    def __init__(self, collector: Collector, results: SimpleQueue[_Result | None], clock: Callable[[], float]) -> None:
        # A daemon: a thread that hangs in the kernel would keep the process from ending.
        super().__init__(name=f"collector-{collector.name}", daemon=True)
        self.collector = collector
        self.called_at: float | None = None
        """The clock when the running call began; ``None`` while idle. Set by the sampler's thread."""
        self.is_slow = False
        """Its calls take longer than a round is allowed to. Set by the sampler's thread."""
        self.rounds: SimpleQueue[int | None] = SimpleQueue()
        self._results = results
        self._clock = clock

    def run(self) -> None:
        while (round_number := self.rounds.get()) is not None:
            self._results.put(self._collect(round_number))

    def _collect(self, round_number: int) -> _Result:
        fields, error = pb.Heartbeat(), None
        started = self._clock()
        try:
            # A copy, because the collector may keep its message; a wrong return value fails here too.
            fields.MergeFrom(self.collector.collect())
        except BaseException as exc:  # noqa: BLE001 - reported; the thread must go on
            error = exc
            if isinstance(exc, CollectorError) and exc.fields is not None:
                fields.MergeFrom(exc.fields)
        return _Result(self, round_number, started, self._clock() - started, fields, error)


class Sampler:
    """Owns the collectors' threads from ``start`` to ``stop``; used once.

    ``sample`` may be called from any thread; a second caller waits for the first. ``clock`` must run in seconds.
    """

    def __init__(
        self,
        collectors: Sequence[Collector],
        *,
        deadline_seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``ValueError`` when two collectors have one name: their reports could not be told apart."""
        names = [collector.name for collector in collectors]
        if len(set(names)) < len(names):
            raise ValueError(f"collectors with the same name: {', '.join(sorted(names))}")
        self.deadline_seconds = deadline_seconds
        """Allowed for one round."""
        self._clock = clock
        self._results: SimpleQueue[_Result | None] = SimpleQueue()
        self._threads = [_CollectorThread(collector, self._results, clock) for collector in collectors]
        self._round_number = 0
        self._failing: set[str] = set()
        self._cleaned: set[str] = set()
        self._one_at_a_time = threading.Lock()
        self._running = threading.Event()

    def start(self) -> None:
        """Starts a thread for each collector, named ``collector-<name>``. ``RuntimeError`` the second time."""
        for thread in self._threads:
            thread.start()
        self._running.set()

    def sample(self) -> pb.Heartbeat:
        """The fields of every collector that was done in time, and a report for each, in the order of the collectors.

        Returns when all are done, at the latest after ``deadline_seconds``. A late result goes with the next heartbeat,
        with its age: a slow collector may take as long as the interval, and is not waited for again. One that is still
        busy then is reported as failed and not called again. The caller adds the sender and the time. ``RuntimeError``
        before ``start`` and after ``stop``.
        """
        with self._one_at_a_time:
            if not self._running.is_set():
                raise RuntimeError("a sampler samples between start and stop only")
            results = self._run_round()
            heartbeat, budget = pb.Heartbeat(), CustomMetricsBudget()
            for thread in self._threads:
                result = results.get(thread)
                if result is not None:
                    result = _within_budget(budget, result)
                    heartbeat.MergeFrom(result.fields)
                    for part in result.fields.collectors:
                        self._log_change(part, None)
                report = self._report(thread, result)
                heartbeat.collectors.append(report)
                self._log_change(report, result)
            self._log_cleaned(clean(heartbeat))
            return heartbeat

    def stop(self) -> None:
        """Ends the threads and a ``sample`` under way. A hanging thread is left behind; it ends with its call."""
        if not self._running.is_set():
            return
        self._running.clear()
        for thread in self._threads:
            thread.rounds.put(None)
        self._results.put(None)
        give_up_at = time.monotonic() + _STOP_GRACE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, give_up_at - time.monotonic()))
        if left := [thread.collector.name for thread in self._threads if thread.is_alive()]:
            _LOGGER.warning("collectors still running at the stop, their threads are left behind: %s", ", ".join(left))

    def _run_round(self) -> dict[_CollectorThread, _Result]:
        """Calls the idle collectors and waits. Returns what came, of this round or, late, of an earlier one."""
        self._round_number += 1
        results: dict[_CollectorThread, _Result] = {}
        while (late := self._next_result(-math.inf)) is not None:
            results[late.thread] = self._returned(late)
        idle = [thread for thread in self._threads if thread.called_at is None]
        now = self._clock()
        for thread in idle:
            thread.called_at = now
            thread.rounds.put(self._round_number)
        awaited = {thread for thread in idle if not (thread.is_slow and thread in results)}
        while awaited and (result := self._next_result(now + self.deadline_seconds)) is not None:
            results[result.thread] = self._returned(result)
            awaited.discard(result.thread)
        return results

    def _returned(self, result: _Result) -> _Result:
        """Notes that the collector is idle, and whether it is slow. It is so until it takes half of its time."""
        thread, duration = result.thread, result.duration_seconds
        thread.called_at = None
        thread.is_slow = duration >= self.deadline_seconds * (0.5 if thread.is_slow else 1.0)
        return result

    def _next_result(self, deadline: float) -> _Result | None:
        """``None`` when there is none by the deadline, and at once when the sampler is stopped."""
        try:
            return self._results.get(timeout=max(0.0, deadline - self._clock()))
        except Empty:
            return None

    def _report(self, thread: _CollectorThread, result: _Result | None) -> pb.CollectorReport:
        name = thread.collector.name
        if result is None:
            duration = 0.0 if thread.called_at is None else self._clock() - thread.called_at
            error = f"still running after {duration:.1f} s"
            return pb.CollectorReport(collector=name, duration_seconds=duration, error=error)
        error = "" if result.error is None else describe(result.error)
        report = pb.CollectorReport(
            collector=name, success=not error, duration_seconds=result.duration_seconds, error=error
        )
        if result.round_number != self._round_number:
            report.age_seconds = self._clock() - result.started_at
        return report

    def _log_cleaned(self, changes: list[str]) -> None:
        """Logs once what the master would have refused, and was cut, escaped or left out."""
        new = [change for change in changes if change not in self._cleaned]
        if new:
            _LOGGER.warning("readings were cut, escaped or left out, because they break a rule: %s", "; ".join(new))
        self._cleaned = set(changes)

    def _log_change(self, report: pb.CollectorReport, result: _Result | None) -> None:
        """Logs once when a collector begins to fail and once when it works again."""
        if report.success and report.collector in self._failing:
            self._failing.remove(report.collector)
            _LOGGER.info("collector %s works again", report.collector)
        elif not report.success and report.collector not in self._failing:
            self._failing.add(report.collector)
            error = None if result is None else result.error
            # Errors of a collector and of the kernel need no traceback; anything else may be a bug.
            trace = None if isinstance(error, CollectorError | OSError) else error
            _LOGGER.warning("collector %s fails: %s", report.collector, report.error, exc_info=trace)


def _within_budget(budget: CustomMetricsBudget, result: _Result) -> _Result:
    """The result, or a failed one when its custom metrics break a rule together with those of earlier collectors.

    Of a collector whose parts have reports of their own, the metrics that break no rule are kept.
    """
    if not result.fields.custom:
        return result
    try:
        budget.add(result.fields.custom)
    except CollectorError as error:
        fields = pb.Heartbeat(collectors=result.fields.collectors)
        if fields.collectors:
            fields.custom.extend(budget.add_valid(result.fields.custom))
        return dataclasses.replace(result, fields=fields, error=error)
    return result


def describe(error: BaseException) -> str:
    """One line of printable text, at most 200 characters, never empty."""
    kind, message = type(error).__name__, str(error)
    text = message if isinstance(error, CollectorError) or not message else f"{kind}: {message}"
    return clean_text(" ".join(printable(text).split()) or kind, _ERROR)
