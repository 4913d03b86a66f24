"""worker.session"""

import asyncio
import itertools
import logging
import random
import socket
import time

import grpc
import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.connection import Failure, ReconnectTimes
from fleetpulse.worker.session import GOODBYE_TIMEOUT_SECONDS, WorkerSession
from tests.worker.scripted import (
    INTERVAL_SECONDS,
    REGISTER,
    TIMEOUT_SECONDS,
    Behavior,
    ScriptedMaster,
    ScriptedStream,
    eventually,
    heartbeats_of,
    late_door,
    never_answer,
    quick_sample,
    refuse,
    register_and_break,
    register_and_end,
    run,
    scripted_master,
    serve,
    session_at,
)


def test_session_registers_and_then_sends_heartbeats() -> None:
    async def test() -> None:
        started = time.time()
        async with scripted_master(serve) as master, session_at(master.target) as session:
            await eventually(lambda: len(heartbeats_of(master)) >= 3)
            assert session.is_connected
            assert session.heartbeats_sent >= 3
        (stream,) = master.streams
        assert stream.messages[0].register == REGISTER
        for number, heartbeat in enumerate(stream.heartbeats, start=1):
            assert (heartbeat.worker_id, heartbeat.incarnation_id) == ("rack-7", "one")
            assert heartbeat.sequence_number == number
            assert started <= heartbeat.sent_time_unix_seconds <= time.time()
            assert heartbeat.cpu.usage_percent == 12.5

    run(test())


def test_heartbeats_come_at_the_interval_of_the_lease() -> None:
    async def serve_slowly(stream: ScriptedStream) -> None:
        await stream.register(interval_seconds=0.2)
        while await stream.receive() is not None:
            continue

    async def test() -> None:
        async with scripted_master(serve_slowly) as master, session_at(master.target):
            await eventually(lambda: len(heartbeats_of(master)) >= 6)
        times = [heartbeat.sent_time_unix_seconds for heartbeat in heartbeats_of(master)]
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        # The first one comes at once; the second one, early, gives each worker of a fleet a phase of its own.
        assert gaps[0] < 0.2
        assert all(gap > 0.1 for gap in gaps[1:])
        assert sum(gaps[1:]) == pytest.approx(0.2 * len(gaps[1:]), abs=0.15)

    run(test())


def test_workers_that_registered_at_once_send_heartbeats_at_different_times() -> None:
    async def second_gap(master: ScriptedMaster, seed: int) -> float:
        session = WorkerSession(master.target, REGISTER, quick_sample, random.Random(seed))
        stream_count = len(master.streams)
        running = asyncio.ensure_future(session.run())
        await eventually(lambda: len(master.streams) > stream_count and len(master.streams[-1].heartbeats) >= 2)
        session.stop("enough")
        await running
        first, second = master.streams[-1].heartbeats[:2]
        return second.sent_time_unix_seconds - first.sent_time_unix_seconds

    async def serve_slowly(stream: ScriptedStream) -> None:
        await stream.register(interval_seconds=0.4)
        while await stream.receive() is not None:
            continue

    async def test() -> None:
        async with scripted_master(serve_slowly) as master:
            gaps = [await second_gap(master, seed) for seed in (1, 2, 3)]
        expected = [0.4 * random.Random(seed).random() for seed in (1, 2, 3)]
        assert gaps == pytest.approx(expected, abs=0.25)  # of 0.05, 0.38 and 0.1

    run(test())


def test_slow_sampler_makes_no_backlog() -> None:
    samples = 0

    async def slow_sample() -> pb.Heartbeat:
        nonlocal samples
        samples += 1
        await asyncio.sleep(10 * INTERVAL_SECONDS if samples == 2 else 0.0)
        return pb.Heartbeat()

    async def test() -> None:
        async with scripted_master(serve) as master, session_at(master.target, slow_sample):
            await eventually(lambda: len(heartbeats_of(master)) >= 8)
        times = [heartbeat.sent_time_unix_seconds for heartbeat in heartbeats_of(master)]
        assert times[7] - times[1] > 4 * INTERVAL_SECONDS

    run(test())


def test_reconnection_keeps_incarnation_and_sequence_numbers(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with scripted_master(register_and_break, serve) as master, session_at(master.target):
            await eventually(lambda: len(master.streams) == 2 and len(master.streams[1].heartbeats) >= 2)
        assert [stream.messages[0].register for stream in master.streams] == [REGISTER, REGISTER]
        numbers = [heartbeat.sequence_number for heartbeat in master.streams[1].heartbeats]
        assert numbers[0] > 3
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))

    with caplog.at_level(logging.INFO):
        run(test())
    assert "(UNAVAILABLE: the master is stopping)" in caplog.text
    assert "connected again after" in caplog.text


def test_session_tells_why_the_last_try_failed() -> None:
    async def test() -> None:
        async with scripted_master(refuse, refuse, serve) as master, session_at(master.target) as session:
            await eventually(lambda: session.failure)
            assert session.failure == Failure(grpc.StatusCode.ALREADY_EXISTS, "another one is connected")
            await eventually(lambda: session.is_connected and session.failure is None)

    run(test())


def test_stream_ended_with_ok_is_opened_again(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with scripted_master(register_and_end, serve) as master, session_at(master.target):
            await eventually(lambda: len(master.streams) == 2 and master.streams[1].heartbeats)

    run(test())
    assert "(OK: the master ended the stream)" in caplog.text


def test_stream_that_breaks_during_a_sample_is_opened_again() -> None:
    """Both the write of the heartbeat and the reader meet the error; neither may be lost."""
    samples = 0

    async def sample() -> pb.Heartbeat:
        nonlocal samples
        samples += 1
        await asyncio.sleep(0.2 if samples == 1 else 0.0)
        return pb.Heartbeat()

    async def break_at_once(stream: ScriptedStream) -> None:
        await stream.register()
        await stream.abort(grpc.StatusCode.ABORTED, "a newer stream")

    async def test() -> None:
        async with scripted_master(break_at_once, serve) as master, session_at(master.target, sample):
            await eventually(lambda: len(master.streams) == 2 and master.streams[1].heartbeats)

    run(test())


def test_repeated_refusal_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with scripted_master(refuse, refuse, refuse, serve) as master, session_at(master.target):
            await eventually(lambda: len(heartbeats_of(master)) >= 1)

    with caplog.at_level(logging.INFO):
        run(test())
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "rack-7" in warnings[0]
    assert "(ALREADY_EXISTS: another one is connected)" in warnings[0]
    assert sum("connected again" in record.message for record in caplog.records) == 1


def test_refusal_with_another_code_is_logged_again(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with scripted_master(refuse, register_and_break, refuse, serve) as master, session_at(master.target):
            await eventually(lambda: len(master.streams) == 4 and master.streams[3].heartbeats)

    with caplog.at_level(logging.WARNING):
        run(test())
    codes = [record.message.partition("(")[2].partition(":")[0] for record in caplog.records]
    assert codes == ["ALREADY_EXISTS", "UNAVAILABLE", "ALREADY_EXISTS"]


def test_unknown_messages_of_a_newer_master_are_ignored() -> None:
    async def send_unknown_messages(stream: ScriptedStream) -> None:
        await stream.register()
        for _ in range(3):
            await stream.send(pb.MasterMessage())
        while await stream.receive() is not None:
            continue

    async def test() -> None:
        async with scripted_master(send_unknown_messages) as master, session_at(master.target):
            await eventually(lambda: len(heartbeats_of(master)) >= 5)
            assert len(master.streams) == 1

    run(test())


def test_registration_without_an_answer_times_out_and_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with scripted_master(never_answer, serve) as master, session_at(master.target) as session:
            await eventually(lambda: session.is_connected, ReconnectTimes.FIRST_ANSWER_SECONDS + TIMEOUT_SECONDS)
            assert len({stream.peer for stream in master.streams}) == 1, "the connection is kept"
            assert len(master.streams) == 2

    run(test())
    assert "(DEADLINE_EXCEEDED: no answer within 10 s)" in caplog.text


def test_time_for_the_answer_begins_when_there_is_a_connection() -> None:
    """A busy master takes long for the connection, and then as long for the answer."""
    pause_seconds = 0.6 * ReconnectTimes.FIRST_ANSWER_SECONDS

    async def answer_late(stream: ScriptedStream) -> None:
        await asyncio.sleep(pause_seconds)
        await serve(stream)

    async def test() -> None:
        async with (
            scripted_master(answer_late) as master,
            late_door(master.target, pause_seconds) as target,
            session_at(target) as session,
        ):
            await eventually(lambda: session.is_connected or len(master.streams) > 1)
            assert len(master.streams) == 1

    run(test())


# Connections and delays of the tries


def test_connection_outlives_a_stream() -> None:
    async def test() -> None:
        async with scripted_master(register_and_break, register_and_end, serve) as master, session_at(master.target):
            await eventually(lambda: len(master.streams) == 3 and master.streams[2].heartbeats)
            assert len({stream.peer for stream in master.streams}) == 1

    run(test())


def test_worker_that_is_refused_holds_no_connection() -> None:
    async def test() -> None:
        async with scripted_master(refuse, refuse, serve) as master, session_at(master.target):
            await eventually(lambda: heartbeats_of(master))
            assert len({stream.peer for stream in master.streams}) == 3

    run(test())


def test_worker_that_is_asked_to_come_later_does_so_on_the_same_connection() -> None:
    refused_at = 0.0

    async def ask_to_come_later(stream: ScriptedStream) -> None:
        nonlocal refused_at
        await stream.receive()
        refused_at = time.monotonic()
        await stream.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "later", (("grpc-retry-pushback-ms", "700"),))

    async def test() -> None:
        async with scripted_master(ask_to_come_later, serve) as master, session_at(master.target):
            await eventually(lambda: len(master.streams) == 2)
            assert time.monotonic() - refused_at >= 0.7
            await eventually(lambda: heartbeats_of(master))
            assert len({stream.peer for stream in master.streams}) == 1

    run(test())


def test_stop_while_it_waits_to_come_later_ends_the_session() -> None:
    async def ask_to_come_later(stream: ScriptedStream) -> None:
        await stream.receive()
        await stream.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "later", (("grpc-retry-pushback-ms", "999999999"),))

    async def test() -> None:
        async with scripted_master(ask_to_come_later) as master:
            session = WorkerSession(master.target, REGISTER, quick_sample)
            running = asyncio.ensure_future(session.run())
            await eventually(lambda: master.streams and master.streams[0].messages)
            await asyncio.wait({running}, timeout=0.5)
            assert not running.done()
            session.stop("maintenance")
            await asyncio.wait_for(running, TIMEOUT_SECONDS)

    run(test())


def test_worker_of_a_large_fleet_waits_within_the_spread_after_a_loss() -> None:
    lost_at = 0.0

    async def register_a_large_fleet(stream: ScriptedStream) -> None:
        nonlocal lost_at
        await stream.receive()
        lease = pb.Registered(
            heartbeat_interval_seconds=INTERVAL_SECONDS, inactivity_timeout_seconds=30.0, reconnect_spread_seconds=3.0
        )
        await stream.send(pb.MasterMessage(registered=lease))
        await stream.receive_heartbeats(1)
        lost_at = time.monotonic()

    async def test() -> None:
        async with scripted_master(register_a_large_fleet, serve) as master, session_at(master.target):
            await eventually(lambda: len(master.streams) == 2)
        # By the seed of the session; without the spread it is back within 0.25 s.
        assert time.monotonic() - lost_at >= 1.0

    run(test())


# Stopping


def test_stop_sends_a_goodbye_and_waits_for_the_end_of_the_stream() -> None:
    async def test() -> None:
        async with scripted_master(serve) as master:
            session = WorkerSession(master.target, REGISTER, quick_sample)
            running = asyncio.ensure_future(session.run())
            await eventually(lambda: heartbeats_of(master))
            session.stop("maintenance")
            session.stop("too late")
            await running
            (stream,) = master.streams
            assert stream.messages[-1].goodbye.reason == "maintenance"
            assert stream.was_closed
            assert not session.is_connected

    run(test())


def test_stop_during_the_registration_sends_a_goodbye() -> None:
    async def register_late(stream: ScriptedStream) -> None:
        await stream.receive()
        await asyncio.sleep(0.1)
        await stream.send(pb.MasterMessage(registered=pb.Registered(heartbeat_interval_seconds=INTERVAL_SECONDS)))
        while await stream.receive() is not None:
            continue

    async def test() -> None:
        async with scripted_master(register_late) as master:
            session = WorkerSession(master.target, REGISTER, quick_sample)
            running = asyncio.ensure_future(session.run())
            await eventually(lambda: master.streams and master.streams[0].messages)
            session.stop("maintenance")
            await running
            kinds = [message.WhichOneof("message") for message in master.streams[0].messages]
            assert kinds == ["register", "goodbye"]

    run(test())


@pytest.mark.parametrize("stops_reading_at_once", [True, False])
def test_stop_does_not_wait_for_a_master_that_reads_nothing(stops_reading_at_once: bool) -> None:
    async def stop_reading(stream: ScriptedStream) -> None:
        if not stops_reading_at_once:
            await stream.register()
            await stream.receive_heartbeats(1)
        await asyncio.get_running_loop().create_future()

    async def test() -> None:
        async with scripted_master(stop_reading) as master:
            session = WorkerSession(master.target, REGISTER, quick_sample)
            running = asyncio.ensure_future(session.run())
            await eventually(lambda: master.streams and session.is_connected is not stops_reading_at_once)
            session.stop("maintenance")
            await asyncio.wait_for(running, GOODBYE_TIMEOUT_SECONDS + TIMEOUT_SECONDS)

    run(test())


def tasks_of_sessions() -> list[str]:
    names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith("WorkerSession.") or name == "_drain"]


@pytest.mark.parametrize("behavior", [never_answer, serve])
def test_cancelled_session_leaves_no_task_behind(behavior: Behavior) -> None:
    async def test() -> None:
        async with scripted_master(behavior) as master, asyncio.timeout(10.0):
            running = asyncio.ensure_future(WorkerSession(master.target, REGISTER, quick_sample).run())
            await eventually(lambda: master.streams and (behavior is never_answer or master.streams[0].heartbeats))
            assert tasks_of_sessions()
            running.cancel()
            await asyncio.wait({running})
            await eventually(lambda: not tasks_of_sessions())

    run(test())


def test_stop_between_two_tries_ends_the_session() -> None:
    async def test() -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            target = f"127.0.0.1:{probe.getsockname()[1]}"
            session = WorkerSession(target, REGISTER, quick_sample)
            running = asyncio.ensure_future(session.run())
            await asyncio.wait({running}, timeout=1.0)
            assert not running.done()
            session.stop("maintenance")
            await asyncio.wait_for(running, TIMEOUT_SECONDS)

    run(test())


def test_stop_before_run_opens_no_stream() -> None:
    async def test() -> None:
        async with scripted_master(serve) as master:
            session = WorkerSession(master.target, REGISTER, quick_sample)
            session.stop("changed its mind")
            await session.run()
            assert master.streams == []

    run(test())
