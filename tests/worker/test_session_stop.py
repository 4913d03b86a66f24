"""worker.session: how a session ends"""

import asyncio
import socket

import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.session import GOODBYE_TIMEOUT_SECONDS, WorkerSession
from tests.worker.scripted import (
    INTERVAL_SECONDS,
    REGISTER,
    TIMEOUT_SECONDS,
    Act,
    ScriptedStream,
    eventually,
    heartbeats_of,
    quick_sample,
    run,
    say_nothing,
    scripted_master,
    serve,
)


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


@pytest.mark.parametrize("act", [say_nothing, serve])
def test_cancelled_session_leaves_no_task_behind(act: Act) -> None:
    async def test() -> None:
        async with scripted_master(act) as master, asyncio.timeout(10.0):
            running = asyncio.ensure_future(WorkerSession(master.target, REGISTER, quick_sample).run())
            await eventually(lambda: master.streams and (act is say_nothing or master.streams[0].heartbeats))
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
