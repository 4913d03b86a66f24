"""worker.tasks.executor, on a simulated engine, as a master sees it."""

import asyncio
import random
from collections.abc import Callable, Sequence

import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import ATTEMPT_REASONS
from fleetpulse.worker.simulation.engine import SimulatedEngine
from fleetpulse.worker.tasks.container_spec import AttemptKey, ContainerSpec
from fleetpulse.worker.tasks.engine import ContainerInfo, ContainerStatus
from fleetpulse.worker.tasks.executor import DisabledExecutor, Executor
from tests.worker.scripted import run
from tests.worker.tasks.fake_master import FakeMaster, running_executor, until


def engine_with(images: set[str] | None = None, pull_seconds: float = 0.0) -> SimulatedEngine:
    return SimulatedEngine(random.Random(1), images, pull_seconds)


async def containers_of(engine: SimulatedEngine) -> set[AttemptKey]:
    return {container.key for container in await engine.containers()}


async def wait_until_empty(engine: SimulatedEngine) -> None:
    await wait_for_containers(engine, lambda containers: not containers)


async def wait_for_containers(engine: SimulatedEngine, condition: Callable[[Sequence[ContainerInfo]], bool]) -> None:
    async with asyncio.timeout(10.0):
        while not condition(await engine.containers()):  # noqa: ASYNC110 - an engine sets no event
            await asyncio.sleep(0.002)


def test_attempt_runs_from_request_to_completion() -> None:
    async def test() -> None:
        engine = engine_with()
        async with running_executor(engine) as master:
            key = master.start("t", "busybox", "sh", "-c", "echo one; echo two")
            end = await master.wait_for_end(key)
            assert master.phases(key) == ["preparing", "running", "completed"]
            assert (end.exit_code, end.oom_killed, end.reason, end.message) == (0, False, "", "")
            assert master.logs[key] == b"one\ntwo\n"
            (running,) = [update for update in master.updates if update.phase == pb.ATTEMPT_PHASE_RUNNING]
            assert running.container_id == end.container_id != ""
            await wait_until_empty(engine)
        numbers = [update.update_number for update in master.updates]
        assert numbers == sorted(set(numbers))
        assert numbers[0] == 1

    run(test())


def test_exit_code_other_than_zero_is_a_failure() -> None:
    async def test() -> None:
        async with running_executor(engine_with()) as master:
            end = await master.wait_for_end(master.start("t", "busybox", "exit", "7"))
            assert (end.phase, end.exit_code, end.reason) == (pb.ATTEMPT_PHASE_FAILED, 7, "exit_code")
            assert "exit code 7" in end.message

    run(test())


def test_repeated_start_request_starts_one_container() -> None:
    async def test() -> None:
        engine = engine_with()
        async with running_executor(engine) as master:
            key = master.start("t", "busybox", "sleep", "0.05")
            master.start("t", "busybox", "sleep", "0.05")
            await master.wait_for_end(key)
            await wait_until_empty(engine)
            master.start("t", "busybox", "sleep", "0.05")
            await master.wait_for_end(master.start("u", "busybox", "true"))
            assert [start.task_id for start in engine.starts] == ["t", "u"]

    run(test())


def test_container_stays_until_its_end_is_acknowledged() -> None:
    async def test() -> None:
        engine = engine_with()
        async with running_executor(engine) as master:
            master.acknowledges = False
            key = master.start("t", "busybox", "echo", "x")
            await master.wait_for_end(key)
            assert await containers_of(engine) == {key}
            master.acknowledge_all()
            await wait_until_empty(engine)

    run(test())


def test_unacknowledged_messages_are_sent_again_on_the_next_stream() -> None:
    async def test() -> None:
        engine = engine_with()
        async with running_executor(engine) as master:
            master.acknowledges = False
            key = master.start("t", "busybox", "sh", "-c", "echo one; exit 3")
            first = await master.wait_for_end(key)
            master.updates.clear()
            master.logs.clear()
            master.acknowledges = True
            register = await master.connect(key)
            assert [AttemptKey.of(held) for held in register.attempts_held] == [key]
            assert await master.wait_for_end(key) == first
            assert master.logs[key] == b"one\n"
            await wait_until_empty(engine)

    run(test())


def test_acknowledged_messages_are_not_sent_again_on_the_next_stream() -> None:
    async def test() -> None:
        engine = engine_with()
        async with running_executor(engine) as master:
            key = master.start("t", "busybox", "sh", "-c", "echo one; sleep 0.3; echo two")
            await until(lambda: master.logs.get(key) == b"one\n")
            updates = len(master.updates)
            await master.connect(key)
            await master.wait_for_end(key)
            assert master.logs[key] == b"one\ntwo\n"
            assert len(master.updates) == updates + 1

    run(test())


def test_containers_go_on_without_a_master() -> None:
    async def test() -> None:
        engine = engine_with()
        async with running_executor(engine) as master:
            key = master.start("t", "busybox", "sh", "-c", "sleep 0.05; echo done; exit 4")
            await master.wait_for_phase(key, "running")
            master.disconnect()
            await wait_for_containers(engine, lambda containers: containers[0].exit_code == 4)
            await master.connect(key)
            assert (await master.wait_for_end(key)).exit_code == 4
            assert master.logs[key] == b"done\n"

    run(test())


def test_attempts_not_kept_are_removed_before_anything_starts() -> None:
    class SlowEngine(SimulatedEngine):
        may_remove = asyncio.Event()

        async def remove(self, container_id: str) -> None:
            await self.may_remove.wait()
            await super().remove(container_id)

    async def test() -> None:
        engine = SlowEngine(random.Random(1))
        async with running_executor(engine) as master:
            old, kept = (master.start(name, "busybox", "sleep", "1000") for name in ("old", "kept"))
            await master.wait_for_phase(old, "running")
            await master.wait_for_phase(kept, "running")
            updates = len(master.updates_of(old))
            await master.connect(kept)
            new = master.start("new", "busybox", "true")
            await master.wait_for_phase(new, "preparing")
            await asyncio.sleep(0.1)
            assert engine.starts == [old, kept]
            engine.may_remove.set()
            await master.wait_for_end(new)
            assert old not in await containers_of(engine)
            assert kept in await containers_of(engine)
            assert len(master.updates_of(old)) == updates

    run(test())


@pytest.mark.parametrize("script", ["sleep 1000", "trap '' TERM; sleep 1000"])
def test_stop_ends_the_container(script: str) -> None:
    async def test() -> None:
        engine = engine_with()
        async with running_executor(engine) as master:
            key = master.start("t", "busybox", "sh", "-c", script)
            await master.wait_for_phase(key, "running")
            master.stop(key, 0.1)
            end = await master.wait_for_end(key)
            assert end.phase == pb.ATTEMPT_PHASE_STOPPED
            assert end.exit_code == (137 if "trap" in script else 143)
            assert end.reason == "stopped"
            await wait_until_empty(engine)

    run(test())


def test_second_stop_may_shorten_the_grace_period() -> None:
    async def test() -> None:
        async with running_executor(engine_with()) as master:
            key = master.start("t", "busybox", "sh", "-c", "trap '' TERM; sleep 1000")
            await master.wait_for_phase(key, "running")
            master.stop(key, 600.0)
            await asyncio.sleep(0.05)
            master.stop(key, 0.0)
            assert (await master.wait_for_end(key)).exit_code == 137

    run(test())


def test_stop_after_the_end_changes_nothing() -> None:
    async def test() -> None:
        async with running_executor(engine_with()) as master:
            master.acknowledges = False
            key = master.start("t", "busybox", "exit", "5")
            await master.wait_for_end(key)
            master.stop(key)
            master.acknowledge_all()
            await until(lambda: key not in master.executor._attempts)
            assert master.phases(key)[-1] == "failed"
            assert [update.exit_code for update in master.updates_of(key)][-1] == 5

    run(test())


def test_stop_during_a_pull() -> None:
    async def test() -> None:
        engine = engine_with(set(), pull_seconds=1000.0)
        async with running_executor(engine) as master:
            key = master.start("t", "busybox", "true")
            await until(lambda: engine.pulls)
            master.stop(key)
            end = await master.wait_for_end(key)
            assert end.phase == pb.ATTEMPT_PHASE_STOPPED
            assert not end.HasField("exit_code")
            assert engine.starts == []

    run(test())


@pytest.mark.parametrize("how", ["stop_task", "stale_update", "stale_log"])
def test_forgotten_attempt_ends_without_an_update(how: str) -> None:
    async def test() -> None:
        engine = engine_with()
        async with running_executor(engine) as master:
            key = master.start("t", "busybox", "sleep", "1000")
            await master.wait_for_phase(key, "running")
            updates = len(master.updates)
            if how == "stop_task":
                master.stop(key, forget=True)
            elif how == "stale_update":
                ack = pb.Ack(update_number=2, stale=True, id=key.message())
                master.executor.receive(pb.MasterMessage(ack=ack))
            else:
                ack = pb.Ack(log=pb.LogReceived(received_bytes=0), stale=True, id=key.message())
                master.executor.receive(pb.MasterMessage(ack=ack))
            await wait_until_empty(engine)
            await master.wait_for_end(master.start("u", "busybox", "true"))
            assert len(master.updates_of(key)) == updates

    run(test())


def test_attempt_forgotten_during_create_leaves_no_container() -> None:
    class SlowEngine(SimulatedEngine):
        async def create(self, spec: object) -> str:
            await asyncio.sleep(0.1)
            return await super().create(spec)  # type: ignore[arg-type]  # only handed on

    async def test() -> None:
        engine = SlowEngine(random.Random(1))
        async with running_executor(engine, resync_seconds=60.0) as master:
            key = master.start("t", "busybox", "sleep", "1000")
            await master.wait_for_phase(key, "preparing")
            await asyncio.sleep(0.03)
            master.stop(key, forget=True)
            await until(lambda: not master.executor._removals)
            assert await engine.containers() == []
            assert engine.starts == []

    run(test())


@pytest.mark.parametrize(("inspections", "reason"), [(2, "out_of_memory"), (10_000, "exit_code")])
def test_oom_flag_may_arrive_after_the_exit(inspections: int, reason: str) -> None:
    class SlowOomEngine(SimulatedEngine):
        ended = 0

        async def inspect(self, container_id: str) -> ContainerInfo:
            container = await super().inspect(container_id)
            self.ended += container.status is ContainerStatus.ENDED
            return container._replace(oom_killed=self.ended > inspections)

    async def test() -> None:
        async with running_executor(SlowOomEngine(random.Random(1))) as master:
            end = await master.wait_for_end(master.start("t", "busybox", "sh", "-c", "exit 137"))
            assert (end.exit_code, end.reason) == (137, reason)

    run(test())


def test_timeout_counts_from_the_container_start() -> None:
    async def test() -> None:
        async with running_executor(engine_with()) as master:
            key = master.start("t", "busybox", "sleep", "1000", timeout_seconds=0.1)
            end = await master.wait_for_end(key)
            assert (end.phase, end.reason, end.exit_code) == (pb.ATTEMPT_PHASE_FAILED, "timeout", 143)

    run(test())


def test_engine_outage_does_not_end_containers() -> None:
    async def test() -> None:
        engine = engine_with()
        async with running_executor(engine, resync_seconds=0.05) as master:
            key = master.start("t", "busybox", "sh", "-c", "echo one; sleep 0.3; echo two; exit 2")
            await master.wait_for_phase(key, "running")
            engine.is_unavailable = True
            await until(lambda: not task_support(master).available)
            assert task_support(master).reason == "the simulated engine is away"
            late = master.start("late", "busybox", "true")
            await asyncio.sleep(0.5)
            assert master.phases(key) == ["preparing", "running"]
            assert master.phases(late) == ["preparing"]
            engine.is_unavailable = False
            assert (await master.wait_for_end(key)).exit_code == 2
            assert master.logs[key] == b"one\ntwo\n"
            assert (await master.wait_for_end(late)).exit_code == 0
            assert task_support(master).available

    run(test())


def task_support(master: FakeMaster) -> pb.TaskSupport:
    heartbeat = pb.Heartbeat()
    master.executor.report(heartbeat)
    return heartbeat.task_support


def test_container_removed_by_somebody_else_is_gone() -> None:
    async def test() -> None:
        engine = engine_with()
        async with running_executor(engine, resync_seconds=0.05) as master:
            key = master.start("t", "busybox", "sleep", "1000")
            running = await master.wait_for_phase(key, "running")
            await engine.remove(running.container_id)
            assert (await master.wait_for_end(key)).reason == "container_gone"

    run(test())


def test_orphans_are_removed_only_after_registration() -> None:
    async def test() -> None:
        engine = engine_with()
        async with running_executor(engine) as first:
            key = first.start("t", "busybox", "sleep", "1000")
            await first.wait_for_phase(key, "running")
        executor = Executor(engine, resync_seconds=0.02)
        executor.start()
        await asyncio.sleep(0.1)
        assert await containers_of(engine) == {key}
        master = FakeMaster(executor)
        register = await master.connect()
        assert [AttemptKey.of(held) for held in register.attempts_held] == [key]
        await wait_until_empty(engine)
        master.disconnect()
        await executor.close()

    run(test())


@pytest.mark.parametrize("finished_while_away", [False, True])
def test_next_incarnation_adopts_the_container(finished_while_away: bool) -> None:
    async def test() -> None:
        engine = engine_with()
        async with running_executor(engine) as first:
            key = first.start("t", "busybox", "sh", "-c", "echo one; sleep 0.2; echo two; exit 6")
            await until(lambda: first.logs.get(key) == b"one\n")
            container_id = first.updates[-1].container_id
        if finished_while_away:
            await wait_for_containers(engine, lambda containers: containers[0].exit_code == 6)
        executor = Executor(engine)
        executor.start()
        master = FakeMaster(executor)
        master.logs = {key: b"one\n"}
        register = await master.connect(key)
        assert [AttemptKey.of(held) for held in register.attempts_held] == [key]
        end = await master.wait_for_end(key)
        assert (end.container_id, end.exit_code) == (container_id, 6)
        assert master.logs[key] == b"one\ntwo\n"
        assert engine.starts == [key]
        assert master.problems == []
        master.disconnect()
        await executor.close()
        assert await engine.containers() == []

    run(test())


def test_next_incarnation_starts_a_created_container() -> None:
    async def test() -> None:
        engine = engine_with()
        async with running_executor(engine) as first:
            first.executor._may_start.clear()
            key = first.start("t", "busybox", "echo", "hello")
            await first.wait_for_phase(key, "preparing")
            spec = first.executor._attempts[key]._origin
            assert isinstance(spec, ContainerSpec)
            await engine.create(spec)
        executor = Executor(engine)
        executor.start()
        master = FakeMaster(executor)
        await master.connect(key)
        assert (await master.wait_for_end(key)).exit_code == 0
        assert master.logs[key] == b"hello\n"
        master.disconnect()
        await executor.close()

    run(test())


def test_heartbeat_has_usage_of_running_attempts() -> None:
    async def test() -> None:
        async with running_executor(engine_with()) as master:
            key = master.start("t", "busybox", "sleep", "1000", cpu_cores=2.0, memory_mib=100)
            await master.wait_for_phase(key, "running")
            attempt = master.executor._attempts[key]
            heartbeat = pb.Heartbeat()
            master.executor.report(heartbeat)
            (reading,) = heartbeat.running_tasks
            assert (reading.task_id, reading.attempt) == ("t", 1)
            assert not reading.HasField("cpu_usage_percent")
            await master.executor._read_usage(attempt)
            await asyncio.sleep(0.05)
            await master.executor._read_usage(attempt)
            reading = attempt.usage_report()
            assert 40.0 < reading.cpu_usage_percent <= 200.0
            assert 0 < reading.memory_used_bytes < 100 * 2**20
            master.stop(key)
            await master.wait_for_end(key)
            heartbeat = pb.Heartbeat()
            master.executor.report(heartbeat)
            assert not heartbeat.running_tasks

    run(test())


def test_missing_image_fails_the_attempt() -> None:
    async def test() -> None:
        async with running_executor(engine_with()) as master:
            end = await master.wait_for_end(master.start("t", "missing/image", "true"))
            assert (end.phase, end.reason) == (pb.ATTEMPT_PHASE_FAILED, "image_not_found")
            assert not end.HasField("exit_code")
            assert not end.container_id

    run(test())


def test_every_reason_is_in_the_contract() -> None:
    async def test() -> None:
        async with running_executor(engine_with()) as master:
            for number, command in enumerate((("exit", "3"), ("true",))):
                await master.wait_for_end(master.start(f"t{number}", "busybox", *command))
            assert {update.reason for update in master.updates} - {""} <= ATTEMPT_REASONS

    run(test())


SECRET_TEXT = "do not show this"
"""A constant, so that no traceback shows it with its line."""


def test_defect_fails_the_attempt_without_leaking_its_text(caplog: pytest.LogCaptureFixture) -> None:
    class BrokenEngine(SimulatedEngine):
        async def start(self, container_id: str) -> None:
            raise RuntimeError(SECRET_TEXT)

    async def test() -> None:
        async with running_executor(BrokenEngine(random.Random(1))) as master:
            end = await master.wait_for_end(master.start("t", "busybox", "true"))
            assert end.reason == "container_failed"
            assert end.message == "a defect of the worker: RuntimeError"
            assert "do not show this" not in repr(master.updates)  # it may quote the environment

    run(test())
    assert "in start" in caplog.text
    assert "do not show this" not in caplog.text


def test_disabled_executor_reports_why_and_fails_attempts() -> None:
    async def test() -> None:
        tasks = DisabledExecutor("tasks are switched off")
        register, heartbeat = pb.Register(), pb.Heartbeat()
        await tasks.describe(register)
        tasks.report(heartbeat)
        assert register.task_support == heartbeat.task_support
        assert register.task_support == pb.TaskSupport(available=False, reason="tasks are switched off")

        request = pb.StartTask(id=pb.AttemptId(task_id="t", attempt=2))
        tasks.receive(pb.MasterMessage(start_task=request))
        update = (await tasks.next_message()).task_update
        assert (update.id, update.phase, update.reason) == (request.id, pb.ATTEMPT_PHASE_FAILED, "no_task_support")
        tasks.disconnected()
        tasks.registered(pb.Registered())
        assert (await tasks.next_message()).task_update == update
        tasks.receive(pb.MasterMessage(ack=pb.Ack(update_number=update.update_number)))
        tasks.registered(pb.Registered())
        tasks.receive(pb.MasterMessage(start_task=pb.StartTask(id=pb.AttemptId(task_id="u", attempt=1))))
        assert (await tasks.next_message()).task_update.id.task_id == "u"

    run(test())
