"""What an image says of itself decides nothing: its environment and labels, on a real Docker Engine."""

import contextlib
from collections.abc import Iterator

import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.policy import TaskPolicy
from fleetpulse.worker.docker_engine.containers import container_labels
from fleetpulse.worker.docker_engine.engine import DockerEngine
from fleetpulse.worker.docker_engine.ownership import ContainerOwner
from fleetpulse.worker.tasks.container_spec import AttemptKey, ContainerSpec
from tests.docker_engine import Engine
from tests.worker.scripted import run
from tests.worker.tasks.fake_master import running_executor, until

pytestmark = pytest.mark.e2e


@contextlib.contextmanager
def image_with(engine: Engine, *changes: str) -> Iterator[str]:
    """The test image with these instructions of a Dockerfile."""
    image = "fleetpulse-hostile:test"
    with engine.client() as client:
        container = client.containers.create(engine.image, ["true"])
        try:
            container.commit(*image.split(":"), changes=list(changes))
        finally:
            container.remove()
        try:
            yield image
        finally:
            client.images.remove(image, force=True)


def test_an_image_cannot_ask_for_gpus(docker_engine: Engine, worker_id: str) -> None:
    async def test(image: str) -> None:
        async with running_executor(DockerEngine(ContainerOwner(worker_id), docker_engine.env)) as master:
            script = "echo $NVIDIA_VISIBLE_DEVICES,$AMD_VISIBLE_DEVICES"
            key = master.start("greedy", image, "sh", "-c", script)
            assert (await master.wait_for_end(key)).exit_code == 0
            assert master.logs[key] == b"void,\n"

    with image_with(docker_engine, "ENV NVIDIA_VISIBLE_DEVICES=all", "ENV AMD_VISIBLE_DEVICES=all") as image:
        run(test(image))


def test_labels_of_an_image_are_not_believed(docker_engine: Engine, worker_id: str) -> None:
    """``fleetpulse.timeout_seconds=0.1`` would end the attempt of whoever uses the image."""

    async def test(image: str) -> None:
        async with running_executor(DockerEngine(ContainerOwner(worker_id), docker_engine.env)) as master:
            key = master.start("patient", image, "sh", "-c", "sleep 1; echo done")
            end = await master.wait_for_end(key)
            assert (end.exit_code, end.reason, master.logs[key]) == (0, "", b"done\n")

    changes = ("LABEL fleetpulse.timeout_seconds=0.1", "LABEL fleetpulse.log_limit_bytes=1")
    with image_with(docker_engine, *changes) as image:
        run(test(image))


def test_a_copied_container_is_left_alone(docker_engine: Engine, worker_id: str) -> None:
    """``docker commit`` copies the labels, with the worker's secret, into an image."""

    async def test() -> None:
        owner = ContainerOwner(worker_id)
        labels = container_labels(ContainerSpec(AttemptKey("copied", 1), docker_engine.image), owner)
        forged = {"fleetpulse.worker_id": worker_id, "fleetpulse.task_id": "forged", "fleetpulse.attempt": "1"}
        with image_with(docker_engine, *(f"LABEL {name}={value}" for name, value in labels.items())) as image:
            with docker_engine.client() as client:
                copies = [
                    client.containers.create(image, ["sleep", "1000"]),
                    client.containers.create(image, ["sleep", "1000"], name="fleetpulse-copied-1"),
                    client.containers.create(image, ["sleep", "1000"], name="fleetpulse-forged-1", labels=forged),
                ]
                for copy in copies:
                    copy.start()
            try:
                engine = DockerEngine(owner, docker_engine.env)
                async with running_executor(engine, resync_seconds=0.05) as master:
                    register = await master.connect()
                    assert not register.attempts_held
                    # The orphans of before are gone when a new attempt runs.
                    await master.wait_for_end(master.start("own", docker_engine.image, "true"))
                    await until(lambda: len(docker_engine.containers(worker_id)) == len(copies))
                    assert await engine.containers() == []
                assert {copy.status for copy in docker_engine.containers(worker_id)} == {"running"}
            finally:
                docker_engine.remove_containers(worker_id)

    run(test())


def test_a_volume_of_an_image_is_bounded_memory(docker_engine: Engine, worker_id: str) -> None:
    """A folder on the disk of the machine would escape the read-only root filesystem and every limit."""

    async def test(image: str) -> None:
        async with running_executor(DockerEngine(ContainerOwner(worker_id), docker_engine.env)) as master:
            script = (
                "echo kept > /data/one; cat /data/one; dd if=/dev/zero of=/data/big bs=1M count=64 2>&1; sleep 1000"
            )
            key = master.start("volume", image, "sh", "-c", script, memory_mib=64, read_only=True)
            await until(lambda: b"No space left" in master.logs.get(key, b""))
            assert master.logs[key].startswith(b"kept\n")
            (container,) = docker_engine.containers(worker_id)
            assert {mount["Type"] for mount in container.attrs["Mounts"]} == {"tmpfs"}
            master.stop(key, 0.0)
            await master.wait_for_end(key)

    with image_with(docker_engine, 'VOLUME ["/data", "/more/"]') as image:
        run(test(image))


def test_a_volume_is_refused_where_read_only_is_forced(docker_engine: Engine, worker_id: str) -> None:
    async def test(image: str) -> None:
        engine = DockerEngine(ContainerOwner(worker_id), docker_engine.env)
        async with running_executor(engine, TaskPolicy(read_only_root="forced")) as master:
            end = await master.wait_for_end(master.start("volume", image, "true"))
            assert end.reason == "policy_refused"
            assert "'/data'" in end.message
            assert not docker_engine.containers(worker_id)

    with image_with(docker_engine, "VOLUME /data") as image:
        run(test(image))


def test_a_task_that_fills_the_disk_is_ended(docker_engine: Engine, worker_id: str) -> None:
    async def test() -> None:
        engine = DockerEngine(ContainerOwner(worker_id), docker_engine.env)
        async with running_executor(engine, TaskPolicy(max_disk_mib=5), disk_seconds=0.05) as master:
            small = master.start(
                "small", docker_engine.image, "sh", "-c", "dd if=/dev/zero of=/x bs=1M count=3; sleep 1000"
            )
            big = master.start(
                "big", docker_engine.image, "sh", "-c", "dd if=/dev/zero of=/x bs=1M count=20; sleep 1000"
            )
            end = await master.wait_for_end(big)
            assert (end.phase, end.reason, end.exit_code) == (pb.ATTEMPT_PHASE_FAILED, "disk_limit", 137)
            assert "5 MiB" in end.message
            assert master.phases(small) == ["preparing", "running"]
            master.stop(small, 0.0)
            assert (await master.wait_for_end(small)).reason == "stopped"

    run(test())
