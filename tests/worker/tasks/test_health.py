"""worker.tasks.health"""

import asyncio
import logging

import pytest

from fleetpulse.worker.tasks.engine import EngineRefused, EngineUnavailable
from fleetpulse.worker.tasks.health import EngineHealth
from tests.worker.scripted import run


class Engine:
    """Gives what it is told to, one answer a call."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.calls = 0

    async def call(self) -> object:
        answer = self.answers[min(self.calls, len(self.answers) - 1)]
        self.calls += 1
        if isinstance(answer, Exception):
            raise answer
        return answer


AWAY = EngineUnavailable("nobody answers")


def test_a_call_is_made_again_until_there_is_an_answer() -> None:
    async def test() -> None:
        health, engine = EngineHealth(), Engine(AWAY, AWAY, "here")
        assert health.support.reason == "the Docker Engine has not been asked yet"
        assert await health.persist(engine.call) == "here"
        assert (engine.calls, health.failures) == (3, 2)
        assert health.support.available
        assert health.support.reason == ""

    run(test())


def test_patience_has_an_end() -> None:
    async def test() -> None:
        health, engine = EngineHealth(patience_seconds=0.3), Engine(AWAY)
        with pytest.raises(EngineUnavailable):
            await health.persist(engine.call)
        assert engine.calls >= 2
        assert health.support.reason == "nobody answers"
        for_ever = asyncio.ensure_future(health.persist(engine.call, for_ever=True))
        done, _ = await asyncio.wait({for_ever}, timeout=1.0)
        assert not done
        for_ever.cancel()

    run(test())


def test_an_answer_that_is_a_refusal_is_not_asked_for_again() -> None:
    async def test() -> None:
        health, engine = EngineHealth(), Engine(EngineRefused("never"))
        with pytest.raises(EngineRefused):
            await health.persist(engine.call)
        assert engine.calls == 1

    run(test())


def test_an_answer_to_one_wakes_all_who_wait() -> None:
    async def test() -> None:
        health, engine = EngineHealth(), Engine(AWAY, AWAY, AWAY, AWAY, "here")
        waiting = asyncio.ensure_future(health.persist(engine.call))
        while engine.calls < 3:  # by now it waits for a second  # noqa: ASYNC110 - counts calls
            await asyncio.sleep(0.01)
        engine.answers = ["here"]
        health.answered()
        async with asyncio.timeout(0.5):
            assert await waiting == "here"

    run(test())


def test_an_outage_is_said_once_and_a_machine_without_an_engine_is_no_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        health = EngineHealth()
        for event in (health.failed, health.failed, None, health.failed, health.failed, None):
            if event is None:
                health.answered()
            else:
                event(AWAY)

    with caplog.at_level(logging.INFO):
        run(test())
    levels = [record.levelname for record in caplog.records]
    assert levels == ["INFO", "INFO", "WARNING", "INFO"]
