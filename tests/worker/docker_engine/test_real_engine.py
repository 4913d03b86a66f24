"""worker.docker_engine.engine on a real Docker Engine, driven by the executor as in a real worker."""

import asyncio
import contextlib
import io
import os
import re
import tarfile
import threading
from collections.abc import AsyncIterator

import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.docker_engine.engine import DockerEngine
from fleetpulse.worker.docker_engine.ownership import ContainerOwner
from fleetpulse.worker.tasks.container_spec import ContainerSpec
from fleetpulse.worker.tasks.engine import EngineUnavailable
from fleetpulse.worker.tasks.log_reader import truncation_mark
from tests.docker_engine import Engine
from tests.worker.scripted import run
from tests.worker.tasks.fake_master import FakeMaster, running_executor, until

pytestmark = pytest.mark.e2e


@contextlib.asynccontextmanager
async def docker_master(engine: Engine, worker_id: str) -> AsyncIterator[FakeMaster]:
    """A master with an executor on the engine."""
    async with running_executor(DockerEngine(ContainerOwner(worker_id), engine.env)) as master:
        yield master


def test_log_has_both_streams_in_order(docker_engine: Engine, worker_id: str) -> None:
    async def test() -> None:
        async with docker_master(docker_engine, worker_id) as master:
            script = "for i in 1 2 3; do echo out $i; sleep 0.05; echo err $i >&2; sleep 0.05; done; printf end; exit 3"
            key = master.start("order", docker_engine.image, "sh", "-c", script)
            end = await master.wait_for_end(key)
            assert master.phases(key) == ["preparing", "running", "failed"]
            assert (end.exit_code, end.oom_killed, end.reason) == (3, False, "exit_code")
            assert master.logs[key] == b"out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\nend"
            await until(lambda: not docker_engine.containers(worker_id))

    run(test())


def test_single_byte_writes_are_joined(docker_engine: Engine, worker_id: str) -> None:
    async def test() -> None:
        async with docker_master(docker_engine, worker_id) as master:
            script = "dd if=/dev/zero bs=1 count=3000 2>/dev/null"
            key = master.start("bytes", docker_engine.image, "sh", "-c", script)
            await master.wait_for_end(key)
            assert master.logs[key] == b"\0" * 3000
            assert master.chunks < 300

    run(test())


def test_log_is_truncated_with_a_mark(docker_engine: Engine, worker_id: str) -> None:
    async def test() -> None:
        async with docker_master(docker_engine, worker_id) as master:
            limit = 2**20
            script = "dd if=/dev/zero bs=1M count=20 2>/dev/null | tr '\\0' x; exit 4"
            key = master.start("much", docker_engine.image, "sh", "-c", script, log_limit_bytes=limit)
            assert (await master.wait_for_end(key, 60.0)).exit_code == 4
            log = master.logs[key]
            assert len(log) == limit
            assert log.endswith(truncation_mark(limit))
            assert set(log[: -len(truncation_mark(limit))]) == {ord("x")}

    run(test())


def test_container_has_limits_and_no_privileges(docker_engine: Engine, worker_id: str) -> None:
    async def test() -> None:
        async with docker_master(docker_engine, worker_id) as master:
            key = master.start(
                "limits", docker_engine.image, "sh", "-c", "echo $GREETING; sleep 1000", cpu_cores=0.25, memory_mib=48,
                env={"GREETING": "hello there"}, timeout_seconds=900.0,
            )  # fmt: skip
            await until(lambda: master.logs.get(key) == b"hello there\n")
            (container,) = docker_engine.containers(worker_id)
            host, labels = container.attrs["HostConfig"], container.labels
            assert container.name == "fleetpulse-limits-1"
            assert host["NanoCpus"] == 250_000_000
            assert host["Memory"] == host["MemorySwap"] == 48 * 2**20
            assert host["PidsLimit"] == 1024
            assert host["CapDrop"] == ["ALL"]
            assert host["SecurityOpt"] == ["no-new-privileges"]
            assert not host["Privileged"]
            assert not host["AutoRemove"]
            assert not host["Binds"]
            assert not container.attrs["Mounts"]
            assert host["Init"]
            assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "64m", "max-file": "4"}}
            assert host["RestartPolicy"]["Name"] in {"", "no"}
            assert labels["fleetpulse.task_id"] == "limits"
            assert labels["fleetpulse.attempt"] == "1"
            master.stop(key, 0.0)
            await master.wait_for_end(key)

    run(test())


def test_missing_gpu_runtime_is_explained(docker_engine: Engine, worker_id: str) -> None:
    async def test() -> None:
        async with docker_master(docker_engine, worker_id) as master:
            end = await master.wait_for_end(master.start("gpu", docker_engine.image, "true", gpu_uuids=("GPU-1",)))
            assert end.reason == "container_failed"
            assert "NVIDIA Container Toolkit" in end.message

    run(test())


def test_usage_of_a_running_container(docker_engine: Engine, worker_id: str) -> None:
    async def test() -> None:
        async with docker_master(docker_engine, worker_id) as master:
            key = master.start("busy", docker_engine.image, "sh", "-c", "while true; do :; done", cpu_cores=0.2)
            await master.wait_for_phase(key, "running")

            def reading() -> pb.RunningTask:
                heartbeat = pb.Heartbeat()
                master.executor.report(heartbeat)
                return heartbeat.running_tasks[0]

            await until(lambda: reading().HasField("cpu_usage_percent"))
            assert 1.0 < reading().cpu_usage_percent < 100.0
            assert 0 < reading().memory_used_bytes < 64 * 2**20
            master.stop(key, 0.0)
            await master.wait_for_end(key)

    run(test())


def test_stop_terminates_then_kills(docker_engine: Engine, worker_id: str) -> None:
    async def test() -> None:
        async with docker_master(docker_engine, worker_id) as master:
            script = "trap 'echo bye; exit 0' TERM; echo ready; while true; do sleep 0.05; done"
            obeys = master.start("obeys", docker_engine.image, "sh", "-c", script)
            ignores = master.start(
                "ignores", docker_engine.image, "sh", "-c", script.replace("'echo bye; exit 0'", "''")
            )
            await until(lambda: all(master.logs.get(key) == b"ready\n" for key in (obeys, ignores)))
            master.stop(obeys, 30.0)
            master.stop(ignores, 0.5)
            first, second = await master.wait_for_end(obeys), await master.wait_for_end(ignores)
            assert (first.phase, first.exit_code) == (pb.ATTEMPT_PHASE_STOPPED, 0)
            assert (second.phase, second.exit_code) == (pb.ATTEMPT_PHASE_STOPPED, 137)
            assert master.logs[obeys] == b"ready\nbye\n"

    run(test())


def test_timeout_ends_the_container(docker_engine: Engine, worker_id: str) -> None:
    async def test() -> None:
        async with docker_master(docker_engine, worker_id) as master:
            end = await master.wait_for_end(
                master.start("late", docker_engine.image, "sleep", "1000", timeout_seconds=0.3)
            )
            assert (end.phase, end.reason, end.exit_code) == (pb.ATTEMPT_PHASE_FAILED, "timeout", 143)

    run(test())


@pytest.mark.parametrize(
    ("script", "log"),
    [
        ("head -c 300000 /dev/zero | tr '\\0' x", b"x" * 300_000),
        ("for i in 1 2 3; do head -c 40000 /dev/zero | tr '\\0' x; echo; done", (b"x" * 40_000 + b"\n") * 3),
        (r"printf 'a\r\n\n\n b\r'", b"a\r\n\n\n b\r"),
    ],
    ids=["one line", "long lines", "ends of lines"],
)
def test_log_is_the_bytes_that_were_written(docker_engine: Engine, worker_id: str, script: str, log: bytes) -> None:
    async def test() -> None:
        async with docker_master(docker_engine, worker_id) as master:
            key = master.start("bytes", docker_engine.image, "sh", "-c", script)
            await master.wait_for_end(key)
            assert master.logs[key] == log

    run(test())


def test_out_of_memory_is_reported(docker_engine: Engine, worker_id: str) -> None:
    async def test() -> None:
        async with docker_master(docker_engine, worker_id) as master:
            # The container outlives the kill: an engine may lose the event of one that ends at once.
            script = "dd if=/dev/zero of=/dev/null bs=200M count=1; code=$?; sleep 1; exit $code"
            command = ("sh", "-c", script)
            end = await master.wait_for_end(master.start("greedy", docker_engine.image, *command, memory_mib=32))
            assert (end.phase, end.reason) == (pb.ATTEMPT_PHASE_FAILED, "out_of_memory")
            assert end.oom_killed
            assert end.exit_code == 137
            assert "32 MiB" in end.message

    run(test())


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [(("no-such-program",), 127, "No such file or directory"), (("/etc",), 126, "Permission denied")],
)
def test_command_that_cannot_be_run(
    docker_engine: Engine, worker_id: str, command: tuple[str, ...], code: int, text: str
) -> None:
    async def test() -> None:
        async with docker_master(docker_engine, worker_id) as master:
            end = await master.wait_for_end(master.start("cannot", docker_engine.image, *command))
            assert (end.reason, end.exit_code) == ("command_not_found", code)
            assert text in end.message
            # A command that a shell does not find is a failure of its script.
            end = await master.wait_for_end(
                master.start("shell", docker_engine.image, "sh", "-c", "no-such-program; exit $?")
            )
            assert (end.reason, end.exit_code) == ("exit_code", 127)

    run(test())


@pytest.mark.parametrize(
    ("image", "reasons"),
    [
        ("fleetpulse.invalid/no/such:1", {"image_pull_failed"}),
        ("Not::An::Image", {"image_invalid"}),
        ("sha256:" + "0" * 64, {"image_not_found", "image_pull_failed", "image_invalid"}),
    ],
)
def test_image_that_cannot_be_pulled(docker_engine: Engine, worker_id: str, image: str, reasons: set[str]) -> None:
    async def test() -> None:
        async with docker_master(docker_engine, worker_id) as master:
            end = await master.wait_for_end(master.start("image", image, "true"), 60.0)
            assert end.reason in reasons
            assert len(end.message) > 20
            assert not end.HasField("exit_code")

    run(test())


def test_image_for_another_processor(docker_engine: Engine, worker_id: str) -> None:
    image = "fleetpulse-malformed:test"
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name in ("program", "bin/sh"):  # Docker tries a shell for what it cannot execute
            program = tarfile.TarInfo(name)
            program.size, program.mode = 4, 0o755
            tar.addfile(program, io.BytesIO(b"\x7fELF"))
    with docker_engine.client() as client:
        client.api.import_image_from_data(content.getvalue(), *image.split(":"))

    async def test() -> None:
        async with docker_master(docker_engine, worker_id) as master:
            end = await master.wait_for_end(master.start("malformed", image, "/program"))
            assert end.reason == "image_invalid"
            assert "another kind of processor" in end.message
            end = await master.wait_for_end(master.start("commandless", image))
            assert end.reason == "command_not_found"

    try:
        run(test())
    finally:
        docker_engine.remove_containers(worker_id)
        with docker_engine.client() as client:
            client.images.remove(image)


def test_create_returns_the_existing_container(docker_engine: Engine, worker_id: str) -> None:
    async def test() -> None:
        owner = ContainerOwner(worker_id)
        async with running_executor(DockerEngine(owner, docker_engine.env)) as master:
            engine = DockerEngine(owner, docker_engine.env)
            key = master.start("twice", docker_engine.image, "sleep", "1000")
            running = await master.wait_for_phase(key, "running")
            spec = master.executor._attempts[key]._origin
            assert isinstance(spec, ContainerSpec)
            assert await engine.create(spec) == running.container_id
            await engine.start(running.container_id)  # changes nothing
            await engine.remove(running.container_id)
            await engine.remove(running.container_id)
            await engine.close()
            assert (await master.wait_for_end(key)).reason in {"container_gone", "exit_code"}

    run(test())


def test_workers_on_one_engine_do_not_touch_each_other(docker_engine: Engine, worker_id: str) -> None:
    async def test() -> None:
        other_id = f"{worker_id}-other"
        async with docker_master(docker_engine, worker_id) as master:
            key = master.start("mine", docker_engine.image, "sleep", "1000")
            running = await master.wait_for_phase(key, "running")
            async with docker_master(docker_engine, other_id) as other:
                await other.wait_for_end(other.start("theirs", docker_engine.image, "true"))
                await until(lambda: not docker_engine.containers(other_id))
            (container,) = docker_engine.containers(worker_id)
            assert (container.id, container.status) == (running.container_id, "running")
            master.stop(key, 0.0)
            await master.wait_for_end(key)

    run(test())


def unbounded_threads() -> int:
    """How many threads there are, without the pools for calls: those start their few threads when they are needed."""
    return sum(
        re.fullmatch(r"docker(-usage|-disk|-pull)?-\d+", thread.name) is None for thread in threading.enumerate()
    )


def test_hundred_containers_leak_no_files_or_threads(docker_engine: Engine, worker_id: str) -> None:
    async def test() -> None:
        async with docker_master(docker_engine, worker_id) as master:

            async def run_some(first: int, count: int) -> None:
                names = [f"many-{number}" for number in range(first, first + count)]
                keys = [master.start(name, docker_engine.image, "echo", name, cpu_cores=0.1) for name in names]
                for key in keys:
                    await master.wait_for_end(key, 60.0)
                assert [master.logs[key] for key in keys] == [f"{name}\n".encode() for name in names]
                await until(lambda: not docker_engine.containers(worker_id))

            await run_some(0, 20)
            files, threads = open_files(), unbounded_threads()
            for first in range(20, 100, 20):
                await run_some(first, 20)
            await until(lambda: open_files() <= files + 2)
            await until(lambda: unbounded_threads() <= threads + 1)

    run(test())


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - nothing but their number


def test_threads_end_when_the_engine_is_closed(docker_engine: Engine, worker_id: str) -> None:
    async def test() -> None:
        async with docker_master(docker_engine, worker_id) as master:
            key = master.start("left", docker_engine.image, "sleep", "1000")
            await master.wait_for_phase(key, "running")
            assert any(thread.name.startswith("docker-log-") for thread in threading.enumerate())
        await until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("docker-")])

    run(test())


def test_engine_without_docker_is_unavailable(worker_id: str) -> None:
    async def test() -> None:
        engine = DockerEngine(ContainerOwner("nobody"), {"DOCKER_HOST": "unix:///nowhere/docker.sock"})
        with pytest.raises(
            EngineUnavailable, match=r"no Docker Engine answers at unix:///nowhere/docker\.sock: No such"
        ):
            await engine.containers()
        await engine.close()
        async with running_executor(
            DockerEngine(ContainerOwner("nobody"), {"DOCKER_HOST": "unix:///nowhere/docker.sock"})
        ) as master:
            register = await master.connect()
            assert not register.task_support.available
            assert "unix:///nowhere/docker.sock" in register.task_support.reason
            assert not register.attempts_held
            await asyncio.sleep(0.1)

    run(test())
