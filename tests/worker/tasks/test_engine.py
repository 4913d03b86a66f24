"""worker.tasks.engine: the health of an engine."""

import asyncio
import logging

import pytest

from fleetpulse.worker.tasks.engine import EngineHealth, EngineRefused, EngineUnavailable
from tests.worker.scripted import run


class Engine:
    """Gives the next answer at each call."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.calls = 0

    async def call(self) -> object:
        answer = self.answers[min(self.calls, len(self.answers) - 1)]
        self.calls += 1
        if isinstance(answer, Exception):
            raise answer
        return answer


UNAVAILABLE = EngineUnavailable("nobody answers")


def test_call_is_retried_until_the_engine_answers() -> None:
    async def test() -> None:
        health, engine = EngineHealth(), Engine(UNAVAILABLE, UNAVAILABLE, "here")
        assert health.task_support.reason == "the Docker Engine has not been asked yet"
        assert await health.retry(engine.call) == "here"
        assert (engine.calls, health.failures) == (3, 2)
        assert health.task_support.available
        assert health.task_support.reason == ""

    run(test())


def test_retry_gives_up_after_the_timeout() -> None:
    async def test() -> None:
        health, engine = EngineHealth(timeout_seconds=0.3), Engine(UNAVAILABLE)
        with pytest.raises(EngineUnavailable):
            await health.retry(engine.call)
        assert engine.calls >= 2
        assert health.task_support.reason == "nobody answers"
        forever = asyncio.ensure_future(health.retry(engine.call, forever=True))
        done, _ = await asyncio.wait({forever}, timeout=1.0)
        assert not done
        forever.cancel()

    run(test())


def test_refused_call_is_not_retried() -> None:
    async def test() -> None:
        health, engine = EngineHealth(), Engine(EngineRefused("never"))
        with pytest.raises(EngineRefused):
            await health.retry(engine.call)
        assert engine.calls == 1

    run(test())


def test_success_wakes_waiting_retries() -> None:
    async def test() -> None:
        health, engine = EngineHealth(), Engine(UNAVAILABLE, UNAVAILABLE, UNAVAILABLE, UNAVAILABLE, "here")
        waiting = asyncio.ensure_future(health.retry(engine.call))
        while engine.calls < 3:  # by now it waits for a second  # noqa: ASYNC110 - counts calls
            await asyncio.sleep(0.01)
        engine.answers = ["here"]
        health.record_success()
        async with asyncio.timeout(0.5):
            assert await waiting == "here"

    run(test())


def test_outage_is_logged_once_and_without_an_engine_as_info(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        health = EngineHealth()
        for event in (
            health.record_failure,
            health.record_failure,
            None,
            health.record_failure,
            health.record_failure,
            None,
        ):
            if event is None:
                health.record_success()
            else:
                event(UNAVAILABLE)

    with caplog.at_level(logging.INFO):
        run(test())
    levels = [record.levelname for record in caplog.records]
    assert levels == ["INFO", "INFO", "WARNING", "INFO"]
