"""One collector on a thread of its own, so that whatever it hangs in, nothing else does."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors.base import Collector


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one call of one collector. Where the call raised there are no fields."""

    runner: "CollectorRunner"
    round_number: int
    duration_seconds: float
    fields: pb.Heartbeat
    error: BaseException | None


class CollectorRunner:
    """Waits for a round, collects, hands the outcome to a queue and waits again.

    Its methods are for the thread that samples; the collector is called on the runner's own thread only.
    """

    def __init__(self, collector: Collector, outcomes: SimpleQueue[Outcome | None], clock: Callable[[], float]) -> None:
        self.name = collector.name
        self.asked_at: float | None = None
        """The clock when the call began that has not been seen to return; None while idle."""
        self._collector = collector
        self._outcomes = outcomes
        self._clock = clock
        self._rounds: SimpleQueue[int | None] = SimpleQueue()
        # A daemon: a thread that hangs in the kernel would keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"collector-{self.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ask(self, round_number: int) -> None:
        """Begin a round. Only for an idle one."""
        self.asked_at = self._clock()
        self._rounds.put(round_number)

    def busy_seconds(self) -> float:
        """Since the call began that has not been seen to return; 0 while idle."""
        return 0.0 if self.asked_at is None else self._clock() - self.asked_at

    def dismiss(self) -> None:
        """The thread ends after the call that it is in."""
        self._rounds.put(None)

    def join(self, timeout_seconds: float) -> bool:
        """Whether the thread has ended."""
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (round_number := self._rounds.get()) is not None:
            self._outcomes.put(self._collect(round_number))

    def _collect(self, round_number: int) -> Outcome:
        fields = pb.Heartbeat()
        started = self._clock()
        try:
            # A copy, for the collector may keep its message; and a wrong return value fails here, on its own thread.
            fields.MergeFrom(self._collector.collect())
        except BaseException as exc:  # noqa: BLE001 - reported; a thread that ended here would not be heard of again
            return Outcome(self, round_number, self._clock() - started, fields, exc)
        return Outcome(self, round_number, self._clock() - started, fields, None)
