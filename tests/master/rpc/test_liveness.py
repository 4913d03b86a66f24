"""master.rpc, master.telemetry: who is active while the hub, or the whole master, stands still or is behind

The session, the bridge and the manager are the real ones. A world without threads moves their clock in steps and says
who runs in each.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetpulse.master.config import LeaseConfig
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.rpc.session import SessionTable, StreamReceipts, StreamSession
from fleetpulse.master.rpc.stream import HubBridge, Stream
from fleetpulse.master.telemetry.manager import TelemetryManager
from fleetpulse.master.telemetry.records import Clock
from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.master.rpc.manual_loop import ManualLoop
from tests.master.rpc.test_session import FakeAttemptReports

STEP_SECONDS = 0.25
TIMEOUT_SECONDS = LeaseConfig().inactivity_timeout_seconds
SLACK_SECONDS = 1.5
"""Between a lease's end and its check, and for grpc's thread to note that it listens again."""

MODES = ("runs", "behind", "stands still", "stopped")
"""What the master does: all that it should; checks for silence but does not come to what waits; nothing but what
grpc's thread does; nothing at all."""


class Worker:
    """A worker at the other end of a stream, or of single calls."""

    def __init__(self, world: "World", worker_id: str) -> None:
        self.world, self.worker_id = world, worker_id
        self.spoke_at = world.loop.now
        self.fell_silent = False
        """It was silent for the timeout, and has not come back yet, as far as the master knows."""

        self.beats = 0
        self.unread: list[bytes] = []

    def beat(self) -> None:
        self.spoke_at = self.world.loop.now
        self.beats += 1
        beat = pb.Heartbeat(worker_id=self.worker_id, incarnation_id="first", sequence_number=self.beats)
        self.unread.append(self.serialized(beat))

    def serialized(self, beat: pb.Heartbeat) -> bytes:
        raise NotImplementedError

    def read(self) -> None:
        """What grpc's thread does with what has arrived."""
        raise NotImplementedError


class StreamWorker(Worker):
    def __init__(self, world: "World", worker_id: str) -> None:
        super().__init__(world, worker_id)
        self.stream = Stream(world.loop, "")
        self.session = StreamSession(world.table, self.stream)
        register = pb.Register(worker_id=worker_id, incarnation_id="first")
        self.unread.append(pb.WorkerMessage(register=register).SerializeToString())

    def serialized(self, beat: pb.Heartbeat) -> bytes:
        return pb.WorkerMessage(heartbeat=beat).SerializeToString()

    def read(self) -> None:
        for data in self.unread:
            if self.stream.put(data, self.world.loop.now):
                self.world.bridge.call_soon(self.session.process)
        self.unread.clear()


class UnaryWorker(Worker):
    def serialized(self, beat: pb.Heartbeat) -> bytes:
        return beat.SerializeToString()

    def read(self) -> None:
        for data in self.unread:
            answer = partial(self.world.table.answer_heartbeat, data, self.world.loop.now)
            self.world.bridge.call_soon(lambda answer=answer: self.answers.append(answer()))  # type: ignore[misc]  # mypy knows no lambda with a default
        self.unread.clear()

    def __init__(self, world: "World", worker_id: str) -> None:
        super().__init__(world, worker_id)
        self.answers: list[object] = []


class World:
    """A master without threads."""

    def __init__(self) -> None:
        self.loop = ManualLoop()
        instruments = Instruments()
        clock = Clock(monotonic=lambda: self.loop.now, wall=lambda: self.loop.now)
        self.manager = TelemetryManager(LeaseConfig(), instruments, clock=clock)
        self.table = SessionTable(self.manager, FakeAttemptReports(), instruments)
        self.bridge = HubBridge(self.loop, lambda: self.loop.now)
        self.bridge.listen()
        self.receipts = StreamReceipts(self.bridge, self.table, clock.monotonic)
        self.manager.set_receipts(self.receipts)
        self.workers: list[Worker] = [StreamWorker(self, "a"), StreamWorker(self, "b"), UnaryWorker(self, "c")]
        self.disturbed: list[float] = []
        """When the master did not do all that it should; ``STEP_SECONDS`` each."""

    def step(self, mode: str) -> None:
        """``STEP_SECONDS`` in which the master is in one of ``MODES``."""
        if mode == "stopped":
            self.loop.now += STEP_SECONDS
        else:
            was_stopped = self.bridge.heard_until(self.loop.now) < self.loop.now - SLACK_SECONDS
            if was_stopped and mode != "stands still":
                # The worst order: the check runs before grpc's thread has read anything.
                self.check()
            self.loop.advance(STEP_SECONDS)
            for worker in self.workers:
                worker.read()
        if mode == "behind":
            self.check()
        elif mode == "runs":
            gevent.idle()
            self.check()
        for worker in self.workers:
            if self.loop.now - worker.spoke_at >= TIMEOUT_SECONDS:
                worker.fell_silent = True
            elif mode == "runs" and self.is_active(worker):
                worker.fell_silent = False
        if mode != "runs":
            self.disturbed.append(self.loop.now)

    def check(self) -> None:
        self.manager.check_liveness()
        for worker in self.workers:
            silent_seconds = self.loop.now - worker.spoke_at
            if silent_seconds < TIMEOUT_SECONDS and not worker.fell_silent:
                assert self.is_active(worker), f"{worker.worker_id} spoke {silent_seconds} s ago"
            excuse = STEP_SECONDS * sum(at > worker.spoke_at for at in self.disturbed)
            if silent_seconds > TIMEOUT_SECONDS + excuse + SLACK_SECONDS:
                assert not self.is_active(worker), f"{worker.worker_id} is silent for {silent_seconds} s"

    def is_active(self, worker: Worker) -> bool:
        known = self.manager.knows_worker(worker.worker_id)
        return not known or self.manager.get_worker_telemetry(worker.worker_id).is_active


@contextmanager
def running_world() -> Iterator[World]:
    world = World()
    try:
        for worker in world.workers:
            worker.beat()
        for _ in range(4):
            world.step("runs")
        yield world
    finally:
        world.manager.shutdown(timeout_seconds=1.0)
        world.bridge.close()
        world.loop.close()


class Period(NamedTuple):
    """A time in which the master is in one mode, and each worker beats every so many seconds or not at all."""

    mode: str
    seconds: float
    intervals: tuple[float | None, float | None, float | None]


INTERVALS = st.sampled_from((None, None, 1.0, 5.0, 20.0, 29.5))
PERIODS = st.builds(
    Period,
    mode=st.sampled_from(MODES),
    seconds=st.integers(1, 240).map(lambda steps: steps * STEP_SECONDS),
    intervals=st.tuples(INTERVALS, INTERVALS, INTERVALS),
)


@settings(max_examples=60, deadline=None)
@given(periods=st.lists(PERIODS, min_size=1, max_size=6))
def test_nobody_who_spoke_within_the_timeout_is_inactive_and_the_silent_are(periods: list[Period]) -> None:
    with running_world() as world:
        for period in (*periods, Period("runs", 2 * TIMEOUT_SECONDS, (None, 5.0, None))):
            for _ in range(round(period.seconds / STEP_SECONDS)):
                for worker, interval in zip(world.workers, period.intervals, strict=True):
                    if interval is not None and world.loop.now - worker.spoke_at >= interval:
                        worker.beat()
                world.step(period.mode)


@pytest.mark.parametrize("mode", MODES)
def test_fleet_that_beats_stays_active_through_a_minute(mode: str) -> None:
    with running_world() as world:
        for mode_now, steps in ((mode, 240), ("runs", 40)):
            for _ in range(steps):
                for worker in world.workers:
                    if world.loop.now - worker.spoke_at >= 5.0:
                        worker.beat()
                world.step(mode_now)
        assert all(world.manager.get_worker_telemetry(name).is_active for name in "abc")
        assert world.bridge.backlog_seconds() == 0.0


def pass_time(world: World, seconds: float) -> None:
    for _ in range(round(seconds / STEP_SECONDS)):
        world.loop.advance(STEP_SECONDS)
        gevent.idle()
        world.manager.check_liveness()


def active(world: World) -> set[str]:
    return {name for name, worker in world.manager.get_all_worker_telemetry().items() if worker.is_active}


def test_only_workers_without_a_stream_are_waited_for_when_somebody_was_turned_away() -> None:
    with running_world() as world:
        lost = world.workers[0]
        assert isinstance(lost, StreamWorker)
        lost.session.close()
        pass_time(world, 20.0)
        world.receipts.turn_away(50.0)
        pass_time(world, 15.0)
        assert active(world) == {"a", "c"}
        pass_time(world, 35.0 + TIMEOUT_SECONDS - 1.0)
        assert active(world) == {"a", "c"}
        pass_time(world, TIMEOUT_SECONDS)
        assert active(world) == set()


def test_leases_that_end_after_something_arrived_wait_until_it_is_handled() -> None:
    with running_world() as world:
        pass_time(world, TIMEOUT_SECONDS - 2.0)
        talker = world.workers[0]
        talker.beat()
        talker.read()
        for _ in range(round(5.0 / STEP_SECONDS)):
            world.step("behind")
        # The leases of the others ended after that arrived, so something of theirs may wait with it.
        assert active(world) == {"a", "b", "c"}
        pass_time(world, 1.0)
        assert active(world) == {"a"}


def test_worker_that_was_heard_on_its_stream_is_active_though_nothing_waits_to_be_handled() -> None:
    """grpc's thread leaves the next message of a worker unread while many of its messages wait."""
    with running_world() as world:
        heard = world.workers[0]
        assert isinstance(heard, StreamWorker)
        pass_time(world, TIMEOUT_SECONDS - 2.0)
        heard.stream.heard_at = world.loop.now
        assert world.bridge.backlog_seconds() == 0.0
        pass_time(world, 5.0)
        assert active(world) == {"a"}
