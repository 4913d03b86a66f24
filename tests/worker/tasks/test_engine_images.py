"""worker.tasks.engine: the image puller."""

import asyncio
import random

import pytest

from fleetpulse.worker.simulation.engine import SimulatedEngine
from fleetpulse.worker.tasks.engine import MAX_PARALLEL_PULLS, EngineClient, EngineRefused, ImagePuller, Progress
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


def test_slow_registry_does_not_hold_up_another() -> None:
    async def test() -> None:
        engine = SimulatedEngine(random.Random(1), set(), pull_seconds=3600.0)
        images = puller_on(engine)
        slow = [
            asyncio.ensure_future(images.ensure(f"slow.example/image-{n}", print))
            for n in range(MAX_PARALLEL_PULLS + 1)
        ]
        await until(lambda: len(engine.pulls) == MAX_PARALLEL_PULLS)
        other = asyncio.ensure_future(images.ensure("fast.example/image", print))
        await until(lambda: "fast.example/image" in engine.pulls)
        # A pull that is cancelled frees its place at once.
        slow[0].cancel()
        await until(lambda: f"slow.example/image-{MAX_PARALLEL_PULLS}" in engine.pulls)
        for pull in (*slow, other):
            pull.cancel()

    run(test())


class FailingEngine(SimulatedEngine):
    """Its first pulls fail with these errors."""

    def __init__(self, *errors: EngineRefused) -> None:
        super().__init__(random.Random(1), set(), pull_seconds=0.0)
        self.errors = list(errors)

    async def pull(self, image: str, progress: Progress, timeout_seconds: float) -> None:
        if self.errors:
            self.pulls.append(image)
            raise self.errors.pop(0)
        await super().pull(image, progress, timeout_seconds)


def test_pull_that_fails_by_chance_is_tried_again() -> None:
    async def test() -> None:
        errors = [EngineRefused(f"reset {n}", "image_pull_failed") for n in range(2)]
        engine, progress = FailingEngine(*errors), list[str]()
        await ImagePuller(EngineClient(engine), pauses_seconds=(0.0, 0.0)).ensure("busybox", progress.append)
        assert engine.pulls == ["busybox"] * 3
        assert progress[1:3] == ["trying again in 0 s: reset 0", "trying again in 0 s: reset 1"]

    run(test())


@pytest.mark.parametrize(("reason", "pulls"), [("image_pull_failed", 3), ("image_not_found", 1), ("disk_full", 1)])
def test_pull_is_given_up(reason: str, pulls: int) -> None:
    async def test() -> None:
        engine = FailingEngine(*(EngineRefused("no", reason) for _ in range(9)))
        with pytest.raises(EngineRefused, match="no"):
            await ImagePuller(EngineClient(engine), pauses_seconds=(0.0, 0.0)).ensure("busybox", print)
        assert len(engine.pulls) == pulls

    run(test())


def test_pull_without_progress_is_given_up_and_one_with_progress_is_not() -> None:
    class SlowEngine(SimulatedEngine):
        async def pull(self, image: str, progress: Progress, timeout_seconds: float) -> None:
            for _ in range(6):
                await asyncio.sleep(timeout_seconds / 3)
                progress("a layer")
            await super().pull(image, progress, timeout_seconds)

    async def test() -> None:
        engine = SlowEngine(random.Random(1), set(), pull_seconds=0.0)
        await ImagePuller(EngineClient(engine), 0.3).ensure("busybox", print)
        hung = SimulatedEngine(random.Random(1), set(), pull_seconds=3600.0)
        with pytest.raises(EngineRefused, match=r"the pull of busybox made no progress for 0\.1 s") as raised:
            await ImagePuller(EngineClient(hung), 0.1).ensure("busybox", print)
        assert (raised.value.reason, hung.pulls) == ("image_pull_failed", ["busybox"])

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
        async def pull(self, image: str, progress: Progress, timeout_seconds: float) -> None:
            for number in range(1000):
                progress(f"{number} of 1000 layers")
            await super().pull(image, progress, timeout_seconds)

    async def test() -> None:
        engine = ChattyEngine(random.Random(1), set())
        async with running_executor(engine) as master:
            key = master.start("t", "busybox", "true")
            await master.wait_for_end(key)
            messages = [update.message for update in master.updates_of(key) if update.message]
            assert messages == ["pulling docker.io/library/busybox:latest"]

    run(test())
