"""Tasks from the command line: a real master, a real worker, a real Docker Engine."""

import json
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.docker_engine import Engine
from tests.e2e.jobs import TIMEOUT_SECONDS, DockerFleet
from tests.e2e.masters import READY_SECONDS, Master
from tests.e2e.processes import FLEETPULSE, CompletedCommand, Processes, RunningProcess
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

SMALL = ("--cpu", "0.1", "--memory", "32")


@pytest.fixture(scope="module")
def fleet(shared_processes: Processes, shared_master: Master, docker_engine: Engine) -> Iterator[DockerFleet]:
    fleet = DockerFleet(shared_processes, shared_master, docker_engine)
    fleet.worker("dock-1")
    yield fleet
    fleet.close()


@pytest.fixture
def start(fleet: DockerFleet, processes: Processes) -> Callable[..., RunningProcess]:
    return lambda *words: processes.start("command", FLEETPULSE, *words, FLEETPULSE_URL=fleet.master.url)


@pytest.fixture
def run(start: Callable[..., RunningProcess]) -> Callable[..., CompletedCommand]:
    def run(*words: str) -> CompletedCommand:
        process = start(*words)
        return CompletedCommand(process.wait(TIMEOUT_SECONDS), process.out, process.err)

    return run


def test_wait_exits_with_the_exit_code_of_the_task(fleet: DockerFleet, run: Callable[..., CompletedCommand]) -> None:
    ended = run("submit", "--wait", *SMALL, fleet.engine.image, "--", "sh", "-c", "echo hi; exit 3")
    assert (ended.code, ended.out) == (3, "hi\n")
    assert "with exit code 3" in ended.err


def test_submit_logs_tasks_task_and_cancel(fleet: DockerFleet, run: Callable[..., CompletedCommand]) -> None:
    submitted = run(
        "submit", *SMALL, "--name", "nightly", fleet.engine.image, "--", "sh", "-c", "echo out; echo err >&2"
    )
    task_id = submitted.out.strip()
    followed = run("logs", "-f", task_id)
    assert (followed.code, sorted(followed.out.splitlines())) == (0, ["err", "out"])
    assert run("logs", task_id).out == followed.out
    assert "nightly" in run("tasks", "--inactive", "--name", "night").out
    assert json.loads(run("task", task_id, "--json").out)["status"] == "completed"
    again = run("cancel", task_id)
    assert again.code == 1
    assert task_id in again.error_line()


def test_ctrl_c_leaves_the_task_running_and_cancel_ends_it(
    fleet: DockerFleet, start: Callable[..., RunningProcess], run: Callable[..., CompletedCommand]
) -> None:
    waiting = start("submit", "--wait", *SMALL, fleet.engine.image, "--", "sh", "-c", "echo on; exec sleep 1000")
    eventually(lambda: waiting.out == "on\n", TIMEOUT_SECONDS)
    waiting.press_ctrl_c()
    assert waiting.wait() == 130
    assert "goes on: `fleetpulse logs -f task-" in waiting.err
    assert "Traceback" not in waiting.err
    task_id = waiting.err.split()[0]
    assert fleet.jobs.status(task_id) == "running"
    followed = start("logs", "-f", task_id)
    eventually(lambda: followed.out == "on\n", TIMEOUT_SECONDS)
    assert run("cancel", task_id).out == f"{task_id} is being cancelled\n"
    assert followed.wait(TIMEOUT_SECONDS) == 0
    assert "cancelled" in followed.err


def test_wait_continues_after_the_master_is_killed(fleet: DockerFleet, start: Callable[..., RunningProcess]) -> None:
    command = "for i in 1 2 3 4 5; do echo $i; sleep 1; done; exit 5"
    waiting = start("submit", "--wait", *SMALL, fleet.engine.image, "--", "sh", "-c", command)
    eventually(lambda: waiting.out.startswith("1\n"), TIMEOUT_SECONDS)
    fleet.master.web_process().send_signal(signal.SIGKILL)
    assert waiting.wait(TIMEOUT_SECONDS + READY_SECONDS) == 5
    assert waiting.out == "".join(f"{number}\n" for number in range(1, 6))
    assert "trying again" in waiting.err
