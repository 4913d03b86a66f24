"""Real worker processes on a real Docker Engine: containers after the end of a worker or of the engine."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.docker_engine.containers import container_labels
from fleetpulse.worker.docker_engine.engine import DockerEngine
from fleetpulse.worker.docker_engine.ownership import ContainerOwner
from fleetpulse.worker.tasks.container_spec import AttemptKey, ContainerSpec
from fleetpulse.worker.tasks.executor import Executor
from tests.docker_engine import Engine, isolated_engine
from tests.worker.scripted import run
from tests.worker.tasks.fake_master import running_executor, until
from tests.worker.tasks.grpc_master import GrpcMaster, grpc_master

pytestmark = pytest.mark.e2e


# The SDK leaves a socket that could not be connected to the garbage collector; here the engine may end at any moment.
ignore_leaked_socket = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)


class Worker:
    """``python -m fleetpulse.worker``, with a stream to a master."""

    def __init__(self, master: GrpcMaster, engine: Engine, worker_id: str, folder: Path, *flags: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLEETPULSE_")}
        self._command = [
            sys.executable, "-m", "fleetpulse.worker", "--master", master.target, "--worker-id", worker_id,
            "--data-dir", str(folder / "data"), *flags,
        ]  # fmt: skip
        self._env = inherited | engine.env
        self._folder = folder
        self.log = folder / "worker.log"
        self.process = self._started()

    def restart(self) -> None:
        """Starts the next incarnation."""
        assert self.process.poll() is not None
        self.process = self._started()

    def end(self, number: signal.Signals) -> None:
        """Sends a signal that ends it."""
        self.process.send_signal(number)
        self.process.wait(20.0)

    def _started(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(self._command, cwd=self._folder, env=self._env, stderr=log)


@contextlib.asynccontextmanager
async def worker_at(
    engine: Engine, worker_id: str, folder: Path, *flags: str
) -> AsyncIterator[tuple[GrpcMaster, Worker]]:
    """A registered worker process."""
    async with grpc_master() as master:
        worker = Worker(master, engine, worker_id, folder, *flags)
        try:
            await master.wait_for_registration()
            yield master, worker
        finally:
            worker.process.kill()
            worker.process.wait()
        assert "Traceback" not in worker.log.read_text()


def test_killed_worker_adopts_its_container(docker_engine: Engine, worker_id: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with worker_at(docker_engine, worker_id, tmp_path) as (master, worker):
            script = "echo one; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo two; exit 9"
            key = await master.start(docker_engine.image, "sh", "-c", script)
            await until(lambda: master.logs.get(key) == b"one\n")
            container_id = master.updates[-1].container_id
            worker.end(signal.SIGKILL)
            worker.restart()
            register = await master.wait_for_registration(2)
            assert [AttemptKey.of(held) for held in register.attempts_held] == [key]
            assert register.incarnation_id != master.registers[0].incarnation_id
            with docker_engine.client() as client:
                client.containers.get(container_id).exec_run(["touch", "/tmp/go"])
            end = await master.wait_for_end(key)
            assert (end.container_id, end.exit_code) == (container_id, 9)
            assert master.logs[key] == b"one\ntwo\n"
            await until(lambda: not docker_engine.containers(worker_id))

    run(test())


def test_exit_while_the_worker_was_down_is_reported(docker_engine: Engine, worker_id: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with worker_at(docker_engine, worker_id, tmp_path) as (master, worker):
            key = await master.start(docker_engine.image, "sh", "-c", "echo one; sleep 1; echo two; exit 9")
            await until(lambda: master.logs.get(key) == b"one\n")
            worker.end(signal.SIGKILL)
            await until(lambda: [container.status for container in docker_engine.containers(worker_id)] == ["exited"])
            worker.restart()
            end = await master.wait_for_end(key)
            assert (end.exit_code, end.oom_killed) == (9, False)
            assert master.logs[key] == b"one\ntwo\n"
            await until(lambda: not docker_engine.containers(worker_id))

    run(test())


def test_stopped_worker_leaves_its_container_running(docker_engine: Engine, worker_id: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with worker_at(docker_engine, worker_id, tmp_path) as (master, worker):
            key = await master.start(docker_engine.image, "sleep", "1000")
            await master.wait_for_phase(key, "running")
            await asyncio.to_thread(worker.end, signal.SIGTERM)
            (container,) = docker_engine.containers(worker_id)
            assert container.status == "running"
            assert master.phases(key) == ["preparing", "running"]
            worker.restart()
            assert len((await master.wait_for_registration(2)).attempts_held) == 1
            await until(lambda: len(master.updates_of(key)) == 3)
            assert master.updates_of(key)[-1].container_id == container.id

    run(test())


def test_containers_not_kept_are_removed(docker_engine: Engine, worker_id: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with worker_at(docker_engine, worker_id, tmp_path) as (master, worker):
            runs = await master.start(docker_engine.image, "sleep", "1000", task_id="runs")
            await master.wait_for_phase(runs, "running")
            worker.end(signal.SIGKILL)
            owner = ContainerOwner(worker_id, tmp_path / "data" / "containers")
            with docker_engine.client() as client:  # one never started, one ended
                for name in ("created", "ended"):
                    labels = container_labels(ContainerSpec(AttemptKey(name, 1), docker_engine.image), owner)
                    container = client.containers.create(
                        docker_engine.image, ["true"], name=f"fleetpulse-{name}-1", labels=labels
                    )
                    if name == "ended":
                        owner.note(str(container.id))
                        container.start()
            updates = len(master.updates)
            master.keeps.clear()
            worker.restart()
            register = await master.wait_for_registration(2)
            assert {held.task_id for held in register.attempts_held} == {"runs", "created", "ended"}
            await until(lambda: not docker_engine.containers(worker_id))
            assert len(master.updates) == updates

    run(test())


def test_heartbeats_continue_while_the_engine_hangs(worker_id: str, tmp_path: Path) -> None:
    async def test() -> None:
        with isolated_engine() as engine:
            async with worker_at(engine, worker_id, tmp_path) as (master, _):
                key = await master.start(engine.image, "sh", "-c", "sleep 1; exit 3")
                await master.wait_for_phase(key, "running")
                pid = int((engine.folder / "pid").read_text())
                os.kill(pid, signal.SIGSTOP)
                try:
                    heartbeats = len(master.heartbeats)
                    await until(lambda: len(master.heartbeats) >= heartbeats + 10)
                    late = await master.start(engine.image, "true", task_id="late")
                    heartbeats = len(master.heartbeats)
                    await until(lambda: len(master.heartbeats) >= heartbeats + 5)
                finally:
                    os.kill(pid, signal.SIGCONT)
                assert (await master.wait_for_end(key)).exit_code == 3
                assert (await master.wait_for_end(late)).exit_code == 0

    run(test())


@ignore_leaked_socket
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_container_survives_an_engine_restart(worker_id: str, end: str) -> None:
    async def test() -> None:
        with isolated_engine(live_restore=True) as engine:
            async with running_executor(
                DockerEngine(ContainerOwner(worker_id), engine.env), resync_seconds=0.1
            ) as master:
                script = "echo one; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo two; exit 5"
                key = master.start("t", engine.image, "sh", "-c", script)
                await until(lambda: master.logs.get(key) == b"one\n")
                container_id = master.updates[-1].container_id
                await asyncio.to_thread(getattr(engine, end))
                await until(lambda: not task_support(master.executor).available)
                assert str(engine.folder) in task_support(master.executor).reason
                await asyncio.to_thread(engine.start)
                await until(lambda: task_support(master.executor).available)
                with engine.client() as client:
                    client.containers.get(container_id).exec_run(["touch", "/tmp/go"])
                assert (await master.wait_for_end(key)).exit_code == 5
                assert master.logs[key] == b"one\ntwo\n"
                assert master.phases(key) == ["preparing", "running", "failed"]

    run(test())


def task_support(executor: Executor) -> pb.TaskSupport:
    heartbeat = pb.Heartbeat()
    executor.report(heartbeat)
    return heartbeat.task_support


@ignore_leaked_socket
def test_containers_ended_by_the_engine_are_failures(worker_id: str) -> None:
    async def test() -> None:
        with isolated_engine() as engine:
            async with running_executor(
                DockerEngine(ContainerOwner(worker_id), engine.env), resync_seconds=0.1
            ) as master:
                key = master.start("t", engine.image, "sleep", "1000")
                await master.wait_for_phase(key, "running")
                await asyncio.to_thread(engine.stop)
                await asyncio.to_thread(engine.start)
                end = await master.wait_for_end(key)
                assert (end.phase, end.reason) == (pb.ATTEMPT_PHASE_FAILED, "exit_code")
                assert end.exit_code in {137, 143}

    run(test())
