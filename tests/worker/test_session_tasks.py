"""worker.session with a real task executor."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import grpc
import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.session import WorkerSession
from fleetpulse.worker.simulation.engine import SimulatedEngine
from fleetpulse.worker.tasks.container_spec import AttemptKey, ContainerSpec
from fleetpulse.worker.tasks.executor import RESYNC_SECONDS, Executor
from tests.worker.scripted import (
    REGISTER,
    ScriptedStream,
    eventually,
    never_answer,
    quick_sample,
    register_and_end,
    run,
    scripted_master,
)
from tests.worker.tasks.grpc_master import GrpcMaster, grpc_master


@contextlib.asynccontextmanager
async def session_with_tasks(
    target: str, engine: SimulatedEngine, resync_seconds: float = RESYNC_SECONDS
) -> AsyncIterator[WorkerSession]:
    executor = Executor(engine, resync_seconds=resync_seconds)
    executor.start()
    session = WorkerSession(target, REGISTER, quick_sample, random.Random(1), executor)
    running = asyncio.ensure_future(session.run())
    try:
        yield session
    finally:
        session.stop("the test ends")
        await running
        await executor.close()
        await engine.shut_down()


def engine() -> SimulatedEngine:
    return SimulatedEngine(random.Random(1))


def test_task_is_run_and_reported_at_once() -> None:
    async def test() -> None:
        async with grpc_master() as master, session_with_tasks(master.target, engine()):
            register = await master.wait_for_registration()
            assert register.worker_id == REGISTER.worker_id
            assert register.task_support.available
            key = await master.start("busybox", "sh", "-c", "echo hello; exit 3")
            end = await master.wait_for_end(key)
            assert (end.exit_code, master.logs[key]) == (3, b"hello\n")
            assert master.phases(key) == ["preparing", "running", "failed"]

    run(test())


def test_heartbeats_list_the_running_tasks() -> None:
    async def test() -> None:
        async with grpc_master() as master, session_with_tasks(master.target, engine()):
            await master.wait_for_registration()
            key = await master.start("busybox", "sleep", "1000")
            await eventually(lambda: master.heartbeats and master.heartbeats[-1].running_tasks)
            (running,) = master.heartbeats[-1].running_tasks
            assert (running.task_id, running.attempt) == key
            assert master.heartbeats[-1].task_support.available

    run(test())


def test_each_stream_registers_with_the_attempts_held() -> None:
    async def test() -> None:
        master, keys = GrpcMaster(), list[AttemptKey]()

        async def break_when_it_runs(stream: ScriptedStream) -> None:
            serving = asyncio.ensure_future(master.serve(stream))
            await eventually(lambda: master.registers)
            keys.append(await master.start("busybox", "sleep", "1000"))
            await master.wait_for_phase(keys[0], "running")
            serving.cancel()
            await stream.abort(grpc.StatusCode.UNAVAILABLE, "the master is stopping")

        async with (
            scripted_master(break_when_it_runs, master.serve) as scripted,
            session_with_tasks(scripted.target, engine()),
        ):
            first, second = await master.wait_for_registration(1), await master.wait_for_registration(2)
            assert not first.attempts_held
            assert [AttemptKey.of(held) for held in second.attempts_held] == keys
            assert first.incarnation_id == second.incarnation_id
            await eventually(lambda: master.heartbeats and master.heartbeats[-1].running_tasks)

    run(test())


def test_worker_registers_again_when_its_engine_becomes_available() -> None:
    async def test() -> None:
        key, simulated = AttemptKey("t", 1), engine()
        await simulated.start(await simulated.create(ContainerSpec(key, "busybox", command=("sleep", "1000"))))
        simulated.is_unavailable = True
        async with grpc_master() as master, session_with_tasks(master.target, simulated, resync_seconds=0.05):
            master.keeps.add(key)
            blind = await master.wait_for_registration(1)
            assert blind.attempts_unknown
            assert not blind.attempts_held
            await eventually(lambda: master.heartbeats and master.heartbeats[-1].engine_failures > 0)
            simulated.is_unavailable = False
            seeing = await master.wait_for_registration(2)
            assert not seeing.attempts_unknown
            assert [AttemptKey.of(held) for held in seeing.attempts_held] == [key]
            await eventually(lambda: master.heartbeats[-1].running_tasks)

    run(test())


def test_unknown_containers_are_kept_while_there_is_no_stream() -> None:
    async def test() -> None:
        simulated = engine()
        executor = Executor(simulated, resync_seconds=0.02)
        executor.start()
        async with scripted_master(register_and_end, never_answer) as master:
            session = WorkerSession(master.target, REGISTER, quick_sample, random.Random(1), executor)
            running = asyncio.ensure_future(session.run())
            await eventually(lambda: len(master.streams) == 2)
            key = AttemptKey("of-another-incarnation", 1)
            await simulated.create(ContainerSpec(key, "busybox"))
            await asyncio.sleep(0.2)
            assert [container.key for container in await simulated.containers()] == [key]
            session.stop("the test ends")
            await running
        await executor.close()

    run(test())


@pytest.mark.parametrize("output_bytes", [0, 8 * 1024 * 1024])
def test_goodbye_does_not_wait_for_a_master_that_reads_nothing(output_bytes: int) -> None:
    """The output fills the stream while the master does not read."""

    async def stop_reading(stream: ScriptedStream) -> None:
        await stream.register()
        start = pb.StartTask(
            id=pb.AttemptId(task_id="t", attempt=1),
            docker_image="busybox",
            cpu_cores=0.5,
            memory_bytes=64 * 2**20,
            command=["sh", "-c", f"head -c {output_bytes} /dev/zero; sleep 1000"],
            log_limit_bytes=2**30,
        )
        await stream.send(pb.MasterMessage(start_task=start))
        await asyncio.get_running_loop().create_future()

    async def test() -> None:
        async with scripted_master(stop_reading) as master:
            simulated = engine()
            async with session_with_tasks(master.target, simulated) as session:
                await eventually(lambda: simulated.starts)
                await asyncio.sleep(0.3)
                session.stop("maintenance")
                await eventually(lambda: not session.is_connected)

    run(test())


def test_goodbye_is_the_last_message_while_much_output_is_pending() -> None:
    async def test() -> None:
        async with grpc_master() as master:
            async with session_with_tasks(master.target, engine()) as session:
                await master.wait_for_registration()
                await master.start("busybox", "sh", "-c", "head -c 50000000 /dev/zero; sleep 1000")
                await eventually(lambda: master.chunks)
                session.stop("maintenance")
                await eventually(lambda: not session.is_connected)
            assert master.goodbyes == ["maintenance"]

    run(test())
