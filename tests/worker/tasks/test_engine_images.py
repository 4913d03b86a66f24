"""worker.tasks.engine: the image puller."""

import asyncio
import random

import pytest

from fleetpulse.worker.simulation.engine import SimulatedEngine
from fleetpulse.worker.tasks.engine import MAX_PARALLEL_PULLS, EngineClient, EngineRefused, ImagePuller
from tests.worker.scripted import run
from tests.worker.tasks.fake_master import running_executor, until


def puller_on(engine: SimulatedEngine) -> ImagePuller:
    return ImagePuller(EngineClient(engine))


def test_local_image_is_not_pulled() -> None:
    async def test() -> None:
        engine = SimulatedEngine(random.Random(1), {"busybox"})
        await puller_on(engine).ensure("busybox", print)
        assert engine.pulls == []

    run(test())


def test_concurrent_requests_share_one_pull() -> None:
    async def test() -> None:
        engine = SimulatedEngine(random.Random(1), set(), pull_seconds=0.05)
        images = puller_on(engine)
        progress: list[str] = []
        await asyncio.gather(*(images.ensure("busybox", progress.append) for _ in range(5)))
        assert engine.pulls == ["busybox"]
        assert progress.count("pulling busybox: 0 of 1 layers") == 5

    run(test())


def test_parallel_pulls_are_limited() -> None:
    async def test() -> None:
        engine = SimulatedEngine(random.Random(1), set(), pull_seconds=0.1)
        images = puller_on(engine)
        progress: list[str] = []
        pulls = [
            asyncio.ensure_future(images.ensure(f"image-{n}", progress.append)) for n in range(MAX_PARALLEL_PULLS + 2)
        ]
        await until(lambda: len(engine.pulls) == MAX_PARALLEL_PULLS)
        assert sum("waiting to pull" in text for text in progress) == 2
        await asyncio.gather(*pulls)
        assert len(engine.pulls) == MAX_PARALLEL_PULLS + 2

    run(test())


def test_pull_is_cancelled_only_when_nobody_waits() -> None:
    async def test() -> None:
        engine = SimulatedEngine(random.Random(1), set(), pull_seconds=0.1)
        images = puller_on(engine)
        first, second = (asyncio.ensure_future(images.ensure("busybox", print)) for _ in range(2))
        await until(lambda: engine.pulls)
        first.cancel()
        await second
        assert engine.images == {"busybox"}

        alone = asyncio.ensure_future(images.ensure("other", print))
        await until(lambda: engine.pulls == ["busybox", "other"])
        alone.cancel()
        await until(lambda: not images._pulls)
        assert engine.images == {"busybox"}

    run(test())


def test_failed_pull_is_reported_to_all_and_retried_by_the_next() -> None:
    async def test() -> None:
        engine = SimulatedEngine(random.Random(1), set(), pull_seconds=0.02)
        images = puller_on(engine)
        results = await asyncio.gather(
            *(images.ensure("missing/image", print) for _ in range(2)), return_exceptions=True
        )
        assert [type(result) for result in results] == [EngineRefused] * 2
        with pytest.raises(EngineRefused, match="no registry gives missing/image"):
            await images.ensure("missing/image", print)
        assert engine.pulls == ["missing/image"] * 2

    run(test())


def test_pull_progress_is_rate_limited() -> None:
    class ChattyEngine(SimulatedEngine):
        async def pull(self, image: str, progress: object) -> None:
            for number in range(1000):
                progress(f"{number} of 1000 layers")  # type: ignore[operator]  # a Progress
            await super().pull(image, progress)  # type: ignore[arg-type]  # a Progress

    async def test() -> None:
        engine = ChattyEngine(random.Random(1), set())
        async with running_executor(engine) as master:
            key = master.start("t", "busybox", "true")
            await master.wait_for_end(key)
            messages = [update.message for update in master.updates_of(key) if update.message]
            assert messages == ["pulling docker.io/library/busybox:latest"]

    run(test())
