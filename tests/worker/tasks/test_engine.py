"""worker.tasks.engine: the client of an engine."""

import asyncio
import logging
import random

import pytest

from fleetpulse.worker.simulation.engine import SimulatedEngine
from fleetpulse.worker.tasks.engine import ContainerEngine, EngineClient, EngineRefused, EngineUnavailable
from tests.worker.scripted import run


class Engine:
    """Gives the next answer at each call."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.calls = 0

    async def call(self, _: ContainerEngine) -> object:
        answer = self.answers[min(self.calls, len(self.answers) - 1)]
        self.calls += 1
        if isinstance(answer, Exception):
            raise answer
        return answer


def client(timeout_seconds: float = 60.0) -> EngineClient:
    """Its engine is not called."""
    return EngineClient(SimulatedEngine(random.Random(1)), timeout_seconds)


UNAVAILABLE = EngineUnavailable("nobody answers")


def test_call_is_retried_until_the_engine_answers() -> None:
    async def test() -> None:
        engine_client, engine = client(), Engine(UNAVAILABLE, UNAVAILABLE, "here")
        assert engine_client.task_support.reason == "the Docker Engine has not been asked yet"
        assert await engine_client.retry(engine.call) == "here"
        assert (engine.calls, engine_client.failures) == (3, 2)
        assert engine_client.task_support.available
        assert engine_client.task_support.reason == ""

    run(test())


def test_retry_gives_up_after_the_timeout() -> None:
    async def test() -> None:
        engine_client, engine = client(0.3), Engine(UNAVAILABLE)
        with pytest.raises(EngineUnavailable):
            await engine_client.retry(engine.call)
        assert engine.calls >= 2
        assert engine_client.task_support.reason == "nobody answers"
        forever = asyncio.ensure_future(engine_client.retry(engine.call, forever=True))
        done, _ = await asyncio.wait({forever}, timeout=1.0)
        assert not done
        forever.cancel()

    run(test())


def test_refused_call_is_not_retried() -> None:
    async def test() -> None:
        engine_client, engine = client(), Engine(EngineRefused("never"))
        with pytest.raises(EngineRefused):
            await engine_client.retry(engine.call)
        assert engine.calls == 1

    run(test())


def test_success_wakes_waiting_retries() -> None:
    async def test() -> None:
        engine_client, engine = client(), Engine(UNAVAILABLE, UNAVAILABLE, UNAVAILABLE, UNAVAILABLE, "here")
        waiting = asyncio.ensure_future(engine_client.retry(engine.call))
        while engine.calls < 3:  # by now it waits for a second  # noqa: ASYNC110 - counts calls
            await asyncio.sleep(0.01)
        engine.answers = ["here"]
        engine_client.record_success()
        async with asyncio.timeout(0.5):
            assert await waiting == "here"

    run(test())


def test_outage_is_logged_once_and_without_an_engine_as_info(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        engine_client = client()
        for event in (
            engine_client.record_failure,
            engine_client.record_failure,
            None,
            engine_client.record_failure,
            engine_client.record_failure,
            None,
        ):
            if event is None:
                engine_client.record_success()
            else:
                event(UNAVAILABLE)

    with caplog.at_level(logging.INFO):
        run(test())
    levels = [record.levelname for record in caplog.records]
    assert levels == ["INFO", "INFO", "WARNING", "INFO"]
