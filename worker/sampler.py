"""Makes one heartbeat out of what the collectors give in time.

A collector can hang for ever in a system call (a filesystem that is gone, a driver). That must not delay a heartbeat,
for a worker whose heartbeats stop is taken for dead. So each has a thread of its own, and a deadline.
"""

import dataclasses
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors.base import Collector, CollectorError
from fleetpulse.worker.collectors.custom.gathering import Gathering
from fleetpulse.worker.collectors.runner import CollectorRunner, Outcome

_log = logging.getLogger(__name__)

ERROR_MAX_LENGTH = 200
"""Characters of a collector's error that a heartbeat carries."""

_STOP_GRACE_SECONDS = 0.5


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
        self._deadline_seconds = deadline_seconds
        self._clock = clock
        self._outcomes: SimpleQueue[Outcome | None] = SimpleQueue()
        self._runners = [CollectorRunner(collector, self._outcomes, clock) for collector in collectors]
        self._round_number = 0
        self._failing: set[str] = set()
        self._one_at_a_time = threading.Lock()
        self._running = threading.Event()

    @property
    def deadline_seconds(self) -> float:
        """What a collector has for one round."""
        return self._deadline_seconds

    def start(self) -> None:
        """Start a thread for each collector, named ``collector-<name>``. ``RuntimeError`` the second time."""
        for runner in self._runners:
            runner.start()
        self._running.set()

    def sample(self) -> pb.Heartbeat:
        """Fields of every collector that was done in time, and one report for each, in the order of the collectors.

        Returns when all are done, at the latest after ``deadline_seconds``. One that is still busy with an earlier
        round is reported as failed and not asked again; what it gives then is thrown away, being old. The caller adds
        who sends the heartbeat and when. ``RuntimeError`` before ``start`` and after ``stop``.
        """
        with self._one_at_a_time:
            if not self._running.is_set():
                raise RuntimeError("a sampler samples between start and stop only")
            outcomes = self._run_round()
            heartbeat, own = pb.Heartbeat(), Gathering()
            for runner in self._runners:
                outcome = self._joining(own, outcomes.get(runner))
                report = self._report(runner, outcome)
                if outcome is not None and outcome.round_number == self._round_number:
                    heartbeat.MergeFrom(outcome.fields)
                    for part in outcome.fields.collectors:
                        self._log_change(part, None)
                heartbeat.collectors.append(report)
                self._log_change(report, outcome)
            return heartbeat

    def stop(self) -> None:
        """End the threads, and a ``sample`` under way. One that hangs is left behind; it ends when its call returns."""
        if not self._running.is_set():
            return
        self._running.clear()
        for runner in self._runners:
            runner.dismiss()
        self._outcomes.put(None)
        give_up_at = time.monotonic() + _STOP_GRACE_SECONDS
        left = [runner.name for runner in self._runners if not runner.join(max(0.0, give_up_at - time.monotonic()))]
        if left:
            _log.warning("collectors still running at the stop, their threads are left behind: %s", ", ".join(left))

    def _run_round(self) -> dict[CollectorRunner, Outcome]:
        """Ask the idle ones and wait. What came meanwhile, be it of this round or, too late, of an earlier one."""
        self._round_number += 1
        while (late := self._next_outcome(-math.inf)) is not None:
            late.runner.asked_at = None
        waiting = {runner for runner in self._runners if runner.asked_at is None}
        deadline = self._clock() + self._deadline_seconds
        for runner in waiting:
            runner.ask(self._round_number)
        outcomes: dict[CollectorRunner, Outcome] = {}
        while waiting and (outcome := self._next_outcome(deadline)) is not None:
            outcome.runner.asked_at = None
            outcomes[outcome.runner] = outcome
            waiting.discard(outcome.runner)
        return outcomes

    def _next_outcome(self, deadline: float) -> Outcome | None:
        """None when there is none by then, and at once when the sampler is stopped."""
        try:
            return self._outcomes.get(timeout=max(0.0, deadline - self._clock()))
        except Empty:
            return None

    def _joining(self, own: Gathering, outcome: Outcome | None) -> Outcome | None:
        """The outcome; a failed one when its own metrics do not go together with those of collectors before it.

        Of a collector with parts that have reports of their own, what goes together is kept.
        """
        if outcome is None or not outcome.fields.custom or outcome.round_number != self._round_number:
            return outcome
        try:
            own.add(outcome.fields.custom)
        except CollectorError as error:
            fields = pb.Heartbeat(collectors=outcome.fields.collectors)
            if fields.collectors:
                fields.custom.extend(own.add_what_fits(outcome.fields.custom))
            return dataclasses.replace(outcome, fields=fields, error=error)
        return outcome

    def _report(self, runner: CollectorRunner, outcome: Outcome | None) -> pb.CollectorReport:
        duration = runner.busy_seconds() if outcome is None else outcome.duration_seconds
        if outcome is None:
            error = f"still running after {duration:.1f} s"
        elif outcome.round_number != self._round_number:
            error = f"took {duration:.1f} s, {self._deadline_seconds:.1f} s are allowed"
        else:
            error = "" if outcome.error is None else describe(outcome.error)
        return pb.CollectorReport(collector=runner.name, success=not error, duration_seconds=duration, error=error)

    def _log_change(self, report: pb.CollectorReport, outcome: Outcome | None) -> None:
        """Once when a collector begins to fail and once when it works again: a round comes every few seconds."""
        if report.success and report.collector in self._failing:
            self._failing.remove(report.collector)
            _log.info("collector %s works again", report.collector)
        elif not report.success and report.collector not in self._failing:
            self._failing.add(report.collector)
            error = None if outcome is None else outcome.error
            # What a collector says, and what the machine refuses, needs no traceback; anything else may be a bug.
            trace = None if isinstance(error, CollectorError | OSError) else error
            _log.warning("collector %s fails: %s", report.collector, report.error, exc_info=trace)


def describe(error: BaseException) -> str:
    """One line of printable text, fit for a terminal, a label and protobuf, of at most 200 characters; never empty."""
    kind = type(error).__name__
    message = str(error)
    text = message if isinstance(error, CollectorError) or not message else f"{kind}: {message}"
    printable = "".join(character if character.isprintable() else " " for character in text)
    return (" ".join(printable.split()) or kind)[:ERROR_MAX_LENGTH]
