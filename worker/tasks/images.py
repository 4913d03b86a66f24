"""Pulls images: once for all attempts that wait for the same one, and a few at a time."""

import asyncio

from fleetpulse.worker.tasks.engine import EngineClient, Progress

MAX_PARALLEL_PULLS = 3


class _Pull:
    """A pull under way and those that wait for it."""

    def __init__(self) -> None:
        self.waiting: list[Progress] = []
        self.progress = ""
        self.task: asyncio.Task[None] | None = None

    def report(self, text: str) -> None:
        self.progress = text
        for progress in self.waiting:
            progress(text)


class ImagePuller:
    """All methods belong to one asyncio loop."""

    def __init__(self, client: EngineClient) -> None:
        self._client = client
        self._slots = asyncio.Semaphore(MAX_PARALLEL_PULLS)
        self._pulls: dict[str, _Pull] = {}

    async def ensure(self, image: str, progress: Progress) -> None:
        """Returns when the machine has the image. Raises ``EngineError``."""
        if await self._client.retry(lambda engine: engine.has_image(image)):
            return
        pull = self._pulls.get(image)
        if pull is None:
            pull = self._pulls[image] = _Pull()
            pull.task = asyncio.create_task(self._run(image, pull), name=f"pull {image}")
        pull.waiting.append(progress)
        progress(pull.progress or f"pulling {image}")
        assert pull.task is not None  # nosec B101 # for the type checker
        try:
            await asyncio.shield(pull.task)
        finally:
            pull.waiting.remove(progress)
            if not pull.waiting:
                pull.task.cancel()  # no effect when it is done

    async def _run(self, image: str, pull: _Pull) -> None:
        try:
            if self._slots.locked():
                pull.report(f"waiting to pull {image}: {MAX_PARALLEL_PULLS} other images are being pulled")
            async with self._slots:
                await self._client.retry(lambda engine: engine.pull(image, pull.report))
        finally:
            del self._pulls[image]
