"""worker.docker_engine.engine"""

import asyncio
import threading

import pytest

from fleetpulse.worker.docker_engine.engine import CallThreads
from tests.worker.scripted import run
from tests.worker.tasks.fake_master import until


def test_calls_run_in_parallel_up_to_the_limit() -> None:
    async def test() -> None:
        threads = CallThreads("beside", 3)
        names: set[str] = set()
        together = threading.Barrier(3)

        def call() -> None:
            names.add(threading.current_thread().name)
            together.wait(10.0)

        await asyncio.gather(*(threads.run(call) for _ in range(9)))
        assert names == {"beside-0", "beside-1", "beside-2"}
        threads.close()
        await until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("beside-")])

    run(test())


def test_sequential_calls_use_one_thread() -> None:
    async def test() -> None:
        threads = CallThreads("after", 3)
        names = {await threads.run(lambda: threading.current_thread().name) for _ in range(5)}
        assert names == {"after-0"}
        threads.close()

    run(test())


def test_error_is_raised_to_the_caller() -> None:
    def fail() -> None:
        raise KeyError("x")

    async def test() -> None:
        threads = CallThreads("error", 1)
        with pytest.raises(KeyError):
            await threads.run(fail)
        assert await threads.run(lambda: 7) == 7
        threads.close()

    run(test())


def test_cancelled_call_is_not_started() -> None:
    async def test() -> None:
        threads = CallThreads("cancelled", 1)
        go, begun = threading.Event(), []
        first = asyncio.ensure_future(threads.run(lambda: go.wait(10.0)))
        second = asyncio.ensure_future(threads.run(lambda: begun.append("second")))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        go.set()
        assert await first
        await threads.run(lambda: None)
        assert begun == []
        threads.close()

    run(test())
