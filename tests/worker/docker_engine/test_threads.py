"""worker.docker_engine.threads"""

import asyncio
import threading

import pytest

from fleetpulse.worker.docker_engine.threads import CallThreads
from tests.worker.scripted import run
from tests.worker.tasks.dialogue import until


def test_calls_run_beside_each_other_on_no_more_threads_than_allowed() -> None:
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


def test_one_thread_is_enough_for_one_call_after_another() -> None:
    async def test() -> None:
        threads = CallThreads("after", 3)
        names = {await threads.run(lambda: threading.current_thread().name) for _ in range(5)}
        assert names == {"after-0"}
        threads.close()

    run(test())


def test_errors_belong_to_who_asked() -> None:
    def fail() -> None:
        raise KeyError("x")

    async def test() -> None:
        threads = CallThreads("error", 1)
        with pytest.raises(KeyError):
            await threads.run(fail)
        assert await threads.run(lambda: 7) == 7
        threads.close()

    run(test())


def test_a_call_that_nobody_waits_for_any_more_is_not_begun() -> None:
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
