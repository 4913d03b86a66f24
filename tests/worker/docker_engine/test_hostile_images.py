"""What an image says of itself decides nothing: its environment and labels, on a real Docker Engine."""

import contextlib
from collections.abc import Iterator

import pytest

from fleetpulse.worker.docker_engine.engine import DockerEngine
from tests.docker_engine import Engine
from tests.worker.scripted import run
from tests.worker.tasks.fake_master import running_executor

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
        async with running_executor(DockerEngine(worker_id, docker_engine.env)) as master:
            script = "echo $NVIDIA_VISIBLE_DEVICES,$AMD_VISIBLE_DEVICES"
            key = master.start("greedy", image, "sh", "-c", script)
            assert (await master.wait_for_end(key)).exit_code == 0
            assert master.logs[key] == b"void,\n"

    with image_with(docker_engine, "ENV NVIDIA_VISIBLE_DEVICES=all", "ENV AMD_VISIBLE_DEVICES=all") as image:
        run(test(image))
