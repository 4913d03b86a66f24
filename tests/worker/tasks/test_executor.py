"""worker.tasks.executor: attempts on a simulated engine, as a master sees them."""

import asyncio
import random
from collections.abc import Callable, Sequence

import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import ATTEMPT_REASONS
from fleetpulse.worker.simulation.engine import SimulatedEngine
from fleetpulse.worker.tasks.engine import AttemptKey, Container, Status
from fleetpulse.worker.tasks.executor import Executor
from tests.worker.scripted import run
from tests.worker.tasks.dialogue import Master, executor_on, until


def engine_with(images: set[str] | None = None, pull_seconds: float = 0.0) -> SimulatedEngine:
    return SimulatedEngine(random.Random(1), images, pull_seconds)


async def containers_of(engine: SimulatedEngine) -> set[AttemptKey]:
    return {container.key for container in await engine.containers()}


async def nothing_is_left_of(engine: SimulatedEngine) -> None:
    await until_engine(engine, lambda containers: not containers)


async def until_engine(engine: SimulatedEngine, condition: Callable[[Sequence[Container]], bool]) -> None:
    async with asyncio.timeout(10.0):
        while not condition(await engine.containers()):  # noqa: ASYNC110 - an engine sets no event
            await asyncio.sleep(0.002)


def test_an_attempt_from_its_order_to_its_end() -> None:
    async def test() -> None:
        engine = engine_with()
        async with executor_on(engine) as master:
            key = master.start("t", "busybox", "sh", "-c", "echo one; echo two")
            end = await master.ends(key)
            assert master.phases(key) == ["preparing", "running", "completed"]
            assert (end.exit_code, end.oom_killed, end.reason, end.message) == (0, False, "", "")
            assert master.logs[key] == b"one\ntwo\n"
            (running,) = [update for update in master.updates if update.phase == pb.ATTEMPT_PHASE_RUNNING]
            assert running.container_id == end.container_id != ""
            await nothing_is_left_of(engine)
        numbers = [update.update_number for update in master.updates]
        assert numbers == sorted(set(numbers))
        assert numbers[0] == 1

    run(test())


def test_another_exit_code() -> None:
    async def test() -> None:
        async with executor_on(engine_with()) as master:
            end = await master.ends(master.start("t", "busybox", "exit", "7"))
            assert (end.phase, end.exit_code, end.reason) == (pb.ATTEMPT_PHASE_FAILED, 7, "exit_code")
            assert "exit code 7" in end.message

    run(test())


def test_an_order_that_comes_twice_starts_one_container() -> None:
    async def test() -> None:
        engine = engine_with()
        async with executor_on(engine) as master:
            key = master.start("t", "busybox", "sleep", "0.05")
            master.start("t", "busybox", "sleep", "0.05")
            await master.ends(key)
            await nothing_is_left_of(engine)
            master.start("t", "busybox", "sleep", "0.05")
            await master.ends(master.start("u", "busybox", "true"))
            assert [start.task_id for start in engine.starts] == ["t", "u"]

    run(test())


def test_a_container_stays_until_its_end_is_acknowledged() -> None:
    async def test() -> None:
        engine = engine_with()
        async with executor_on(engine) as master:
            master.acknowledges = False
            key = master.start("t", "busybox", "echo", "x")
            await master.ends(key)
            assert await containers_of(engine) == {key}
            master.acknowledge_all()
            await nothing_is_left_of(engine)

    run(test())


def test_what_was_not_acknowledged_is_said_again_on_the_next_stream() -> None:
    async def test() -> None:
        engine = engine_with()
        async with executor_on(engine) as master:
            master.acknowledges = False
            key = master.start("t", "busybox", "sh", "-c", "echo one; exit 3")
            first = await master.ends(key)
            master.updates.clear()
            master.logs.clear()
            master.acknowledges = True
            register = await master.connect(key)
            assert [AttemptKey.of(held) for held in register.attempts_held] == [key]
            assert await master.ends(key) == first
            assert master.logs[key] == b"one\n"
            await nothing_is_left_of(engine)

    run(test())


def test_what_a_broken_stream_has_carried_is_not_said_again() -> None:
    async def test() -> None:
        engine = engine_with()
        async with executor_on(engine) as master:
            key = master.start("t", "busybox", "sh", "-c", "echo one; sleep 0.3; echo two")
            await until(lambda: master.logs.get(key) == b"one\n")
            updates = len(master.updates)
            await master.connect(key)
            await master.ends(key)
            assert master.logs[key] == b"one\ntwo\n"
            assert len(master.updates) == updates + 1

    run(test())


def test_containers_go_on_without_a_master() -> None:
    async def test() -> None:
        engine = engine_with()
        async with executor_on(engine) as master:
            key = master.start("t", "busybox", "sh", "-c", "sleep 0.05; echo done; exit 4")
            await master.comes_to(key, "running")
            master.disconnect()
            await until_engine(engine, lambda containers: containers[0].exit_code == 4)
            await master.connect(key)
            assert (await master.ends(key)).exit_code == 4
            assert master.logs[key] == b"done\n"

    run(test())


def test_what_the_master_does_not_keep_is_gone_before_anything_begins() -> None:
    class SlowEngine(SimulatedEngine):
        may_remove = asyncio.Event()

        async def remove(self, container_id: str) -> None:
            await self.may_remove.wait()
            await super().remove(container_id)

    async def test() -> None:
        engine = SlowEngine(random.Random(1))
        async with executor_on(engine) as master:
            old, kept = (master.start(name, "busybox", "sleep", "1000") for name in ("old", "kept"))
            await master.comes_to(old, "running")
            await master.comes_to(kept, "running")
            told = len(master.updates_of(old))
            await master.connect(kept)
            new = master.start("new", "busybox", "true")
            await master.comes_to(new, "preparing")
            await asyncio.sleep(0.1)
            assert engine.starts == [old, kept]
            engine.may_remove.set()
            await master.ends(new)
            assert old not in await containers_of(engine)
            assert kept in await containers_of(engine)
            assert len(master.updates_of(old)) == told

    run(test())


@pytest.mark.parametrize("script", ["sleep 1000", "trap '' TERM; sleep 1000"])
def test_a_stop(script: str) -> None:
    async def test() -> None:
        engine = engine_with()
        async with executor_on(engine) as master:
            key = master.start("t", "busybox", "sh", "-c", script)
            await master.comes_to(key, "running")
            master.stop(key, 0.1)
            end = await master.ends(key)
            assert end.phase == pb.ATTEMPT_PHASE_STOPPED
            assert end.exit_code == (137 if "trap" in script else 143)
            assert end.reason == "stopped"
            await nothing_is_left_of(engine)

    run(test())


def test_a_second_stop_may_shorten_the_grace() -> None:
    async def test() -> None:
        async with executor_on(engine_with()) as master:
            key = master.start("t", "busybox", "sh", "-c", "trap '' TERM; sleep 1000")
            await master.comes_to(key, "running")
            master.stop(key, 600.0)
            await asyncio.sleep(0.05)
            master.stop(key, 0.0)
            assert (await master.ends(key)).exit_code == 137

    run(test())


def test_a_stop_that_comes_too_late_changes_nothing() -> None:
    async def test() -> None:
        async with executor_on(engine_with()) as master:
            master.acknowledges = False
            key = master.start("t", "busybox", "exit", "5")
            await master.ends(key)
            master.stop(key)
            master.acknowledge_all()
            await until(lambda: key not in master.executor._attempts)
            assert master.phases(key)[-1] == "failed"
            assert [update.exit_code for update in master.updates_of(key)][-1] == 5

    run(test())


def test_a_stop_during_a_pull() -> None:
    async def test() -> None:
        engine = engine_with(set(), pull_seconds=1000.0)
        async with executor_on(engine) as master:
            key = master.start("t", "busybox", "true")
            await until(lambda: engine.pulls)
            master.stop(key)
            end = await master.ends(key)
            assert end.phase == pb.ATTEMPT_PHASE_STOPPED
            assert not end.HasField("exit_code")
            assert engine.starts == []

    run(test())


@pytest.mark.parametrize("how", ["stop_task", "stale_update", "stale_log"])
def test_an_attempt_that_is_to_be_forgotten_ends_without_a_word(how: str) -> None:
    async def test() -> None:
        engine = engine_with()
        async with executor_on(engine) as master:
            key = master.start("t", "busybox", "sleep", "1000")
            await master.comes_to(key, "running")
            told = len(master.updates)
            if how == "stop_task":
                master.stop(key, forget=True)
            elif how == "stale_update":
                ack = pb.Ack(update_number=2, stale=True, id=key.message())
                master.executor.receive(pb.MasterMessage(ack=ack))
            else:
                ack = pb.Ack(log=pb.LogReceived(received_bytes=0), stale=True, id=key.message())
                master.executor.receive(pb.MasterMessage(ack=ack))
            await nothing_is_left_of(engine)
            await master.ends(master.start("u", "busybox", "true"))
            assert len(master.updates_of(key)) == told

    run(test())


def test_one_that_is_forgotten_while_its_container_is_made_leaves_none() -> None:
    class SlowEngine(SimulatedEngine):
        async def create(self, spec: object) -> str:
            await asyncio.sleep(0.1)
            return await super().create(spec)  # type: ignore[arg-type]  # only handed on

    async def test() -> None:
        engine = SlowEngine(random.Random(1))
        async with executor_on(engine, round_seconds=60.0) as master:
            key = master.start("t", "busybox", "sleep", "1000")
            await master.comes_to(key, "preparing")
            await asyncio.sleep(0.03)
            master.stop(key, forget=True)
            await until(lambda: not master.executor._removals)
            assert await engine.containers() == []
            assert engine.starts == []

    run(test())


@pytest.mark.parametrize(("looks", "reason"), [(2, "out_of_memory"), (10_000, "exit_code")])
def test_that_memory_was_the_reason_may_be_told_a_moment_later(looks: int, reason: str) -> None:
    class Forgetful(SimulatedEngine):
        ended = 0

        async def inspect(self, container_id: str) -> Container:
            container = await super().inspect(container_id)
            self.ended += container.status is Status.ENDED
            return container._replace(oom_killed=self.ended > looks)

    async def test() -> None:
        async with executor_on(Forgetful(random.Random(1))) as master:
            end = await master.ends(master.start("t", "busybox", "sh", "-c", "exit 137"))
            assert (end.exit_code, end.reason) == (137, reason)

    run(test())


def test_a_timeout_counts_from_the_start_of_the_container() -> None:
    async def test() -> None:
        async with executor_on(engine_with()) as master:
            key = master.start("t", "busybox", "sleep", "1000", timeout_seconds=0.1)
            end = await master.ends(key)
            assert (end.phase, end.reason, end.exit_code) == (pb.ATTEMPT_PHASE_FAILED, "timeout", 143)

    run(test())


def test_a_short_outage_of_the_engine_is_not_the_end_of_a_container() -> None:
    async def test() -> None:
        engine = engine_with()
        async with executor_on(engine, round_seconds=0.05) as master:
            key = master.start("t", "busybox", "sh", "-c", "echo one; sleep 0.3; echo two; exit 2")
            await master.comes_to(key, "running")
            engine.is_away = True
            await until(lambda: not support(master).available)
            assert support(master).reason == "the simulated engine is away"
            late = master.start("late", "busybox", "true")
            await asyncio.sleep(0.5)
            assert master.phases(key) == ["preparing", "running"]
            assert master.phases(late) == ["preparing"]
            engine.is_away = False
            assert (await master.ends(key)).exit_code == 2
            assert master.logs[key] == b"one\ntwo\n"
            assert (await master.ends(late)).exit_code == 0
            assert support(master).available

    run(test())


def support(master: Master) -> pb.TaskSupport:
    heartbeat = pb.Heartbeat()
    master.executor.report(heartbeat)
    return heartbeat.task_support


def test_a_container_that_somebody_removed() -> None:
    async def test() -> None:
        engine = engine_with()
        async with executor_on(engine, round_seconds=0.05) as master:
            key = master.start("t", "busybox", "sleep", "1000")
            running = await master.comes_to(key, "running")
            await engine.remove(running.container_id)
            assert (await master.ends(key)).reason == "container_gone"

    run(test())


def test_orphans_are_removed_but_not_without_a_master() -> None:
    async def test() -> None:
        engine = engine_with()
        async with executor_on(engine) as first:
            key = first.start("t", "busybox", "sleep", "1000")
            await first.comes_to(key, "running")
        executor = Executor(engine, round_seconds=0.02)
        executor.open()
        await asyncio.sleep(0.1)
        assert await containers_of(engine) == {key}
        master = Master(executor)
        register = await master.connect()
        assert [AttemptKey.of(held) for held in register.attempts_held] == [key]
        await nothing_is_left_of(engine)
        master.disconnect()
        await executor.close()

    run(test())


@pytest.mark.parametrize("finished_while_away", [False, True])
def test_the_next_incarnation_goes_on_where_the_last_one_was(finished_while_away: bool) -> None:
    async def test() -> None:
        engine = engine_with()
        async with executor_on(engine) as first:
            key = first.start("t", "busybox", "sh", "-c", "echo one; sleep 0.2; echo two; exit 6")
            await until(lambda: first.logs.get(key) == b"one\n")
            container_id = first.updates[-1].container_id
        if finished_while_away:
            await until_engine(engine, lambda containers: containers[0].exit_code == 6)
        executor = Executor(engine)
        executor.open()
        master = Master(executor)
        master.logs = {key: b"one\n"}
        register = await master.connect(key)
        assert [AttemptKey.of(held) for held in register.attempts_held] == [key]
        end = await master.ends(key)
        assert (end.container_id, end.exit_code) == (container_id, 6)
        assert master.logs[key] == b"one\ntwo\n"
        assert engine.starts == [key]
        assert master.problems == []
        master.disconnect()
        await executor.close()
        assert await engine.containers() == []

    run(test())


def test_a_container_that_was_made_and_not_started_is_started_by_the_next_incarnation() -> None:
    async def test() -> None:
        engine = engine_with()
        async with executor_on(engine) as first:
            first.executor._means.may_start.clear()
            key = first.start("t", "busybox", "echo", "hello")
            await first.comes_to(key, "preparing")
            spec = first.executor._attempts[key]._spec
            assert spec is not None
            await engine.create(spec)
        executor = Executor(engine)
        executor.open()
        master = Master(executor)
        await master.connect(key)
        assert (await master.ends(key)).exit_code == 0
        assert master.logs[key] == b"hello\n"
        master.disconnect()
        await executor.close()

    run(test())


def test_readings_of_what_runs_are_in_the_heartbeat() -> None:
    async def test() -> None:
        async with executor_on(engine_with()) as master:
            key = master.start("t", "busybox", "sleep", "1000", cpu_cores=2.0, memory_mib=100)
            await master.comes_to(key, "running")
            attempt = master.executor._attempts[key]
            heartbeat = pb.Heartbeat()
            master.executor.report(heartbeat)
            (reading,) = heartbeat.running_tasks
            assert (reading.task_id, reading.attempt) == ("t", 1)
            assert not reading.HasField("cpu_usage_percent")
            await master.executor._take_usage_of(attempt)
            await asyncio.sleep(0.05)
            await master.executor._take_usage_of(attempt)
            reading = attempt.reading()
            assert 40.0 < reading.cpu_usage_percent <= 200.0
            assert 0 < reading.memory_used_bytes < 100 * 2**20
            master.stop(key)
            await master.ends(key)
            heartbeat = pb.Heartbeat()
            master.executor.report(heartbeat)
            assert not heartbeat.running_tasks

    run(test())


def test_who_gives_up_on_an_image_and_why() -> None:
    async def test() -> None:
        async with executor_on(engine_with()) as master:
            end = await master.ends(master.start("t", "missing/image", "true"))
            assert (end.phase, end.reason) == (pb.ATTEMPT_PHASE_FAILED, "image_not_found")
            assert not end.HasField("exit_code")
            assert not end.container_id

    run(test())


def test_every_reason_is_one_of_the_contract() -> None:
    async def test() -> None:
        async with executor_on(engine_with()) as master:
            for number, command in enumerate((("exit", "3"), ("true",))):
                await master.ends(master.start(f"t{number}", "busybox", *command))
            assert {update.reason for update in master.updates} - {""} <= ATTEMPT_REASONS

    run(test())


THOUGHT = "never thought of"
"""Here, so that no traceback quotes it with its line."""


def test_a_defect_is_an_end_like_any_other(caplog: pytest.LogCaptureFixture) -> None:
    class BrokenEngine(SimulatedEngine):
        async def start(self, container_id: str) -> None:
            raise RuntimeError(THOUGHT)

    async def test() -> None:
        async with executor_on(BrokenEngine(random.Random(1))) as master:
            end = await master.ends(master.start("t", "busybox", "true"))
            assert end.reason == "container_failed"
            assert end.message == "a defect of the worker: RuntimeError"
            assert "never thought of" not in repr(master.updates)  # it may quote the environment

    run(test())
    assert "in start" in caplog.text
    assert "never thought of" not in caplog.text
