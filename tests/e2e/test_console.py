"""The console commands with a real master, a simulated fleet and a real terminal."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.e2e.masters import FAST_LEASE_FLAGS, READY_SECONDS, Master, MasterClient
from tests.e2e.processes import FLEETPULSE, CompletedCommand, Processes
from tests.e2e.terminal import CTRL_C, CTRL_D, ENTER, TAB, UP, Terminal
from tests.e2e.waiting import eventually
from tests.ports import free_port, ports_are_closed

pytestmark = pytest.mark.e2e

WORKERS = ("worker-1", "worker-2", "worker-3")
Open = Callable[..., Terminal]


@pytest.fixture(scope="module")
def fleet(shared_processes: Processes, shared_master: Master) -> Master:
    """A master with three simulated workers."""
    shared_processes.simulate(shared_master.target, len(WORKERS), "--prefix", "worker", "--gpu-share", "0")
    eventually(lambda: shared_master.active() == len(WORKERS), READY_SECONDS)
    return shared_master


@pytest.fixture
def run(fleet: Master, processes: Processes) -> Callable[..., CompletedCommand]:
    """Runs a command against that master."""
    return lambda *words: processes.run(FLEETPULSE, *words, FLEETPULSE_URL=fleet.url)


@pytest.fixture
def open_terminal(processes: Processes) -> Iterator[Open]:
    """Opens terminals that are closed with the test."""
    opened: list[Terminal] = []

    def open_terminal(*command: str, columns: int = 100, **env: str) -> Terminal:
        terminal = Terminal(*command, env=processes.environment(**env), columns=columns)
        opened.append(terminal)
        return terminal

    yield open_terminal
    for terminal in opened:
        terminal.close()


def test_commands_into_a_pipe(run: Callable[..., CompletedCommand], fleet: Master) -> None:
    workers = run("workers")
    assert (workers.code, workers.err) == (0, "")
    assert tuple(line.split()[0] for line in workers.out.splitlines()[1:]) == WORKERS
    assert "\x1b" not in workers.out
    assert json.loads(run("workers", "--json").out)[0].keys() == fleet.json("/api/workers")[0].keys()
    status = run("status", "worker-1")
    assert re.search(r"^state: +active$", status.out, re.MULTILINE)
    assert run("status").out.count("3 active") == 1
    assert run("top", "--once").out.count("worker-") == len(WORKERS)
    unknown = run("status", "worker-11")
    assert (unknown.code, unknown.out) == (4, "")
    assert "did you mean 'worker-1'?" in unknown.error_line()


def test_drain_appears_in_events(run: Callable[..., CompletedCommand], fleet: Master, processes: Processes) -> None:
    events = processes.start("events", FLEETPULSE, "events", "--json", FLEETPULSE_URL=fleet.url)

    def drained_and_seen() -> bool:
        assert run("drain", "worker-3").code == run("undrain", "worker-3").code == 0
        return '"undrained"' in events.out

    eventually(drained_and_seen, READY_SECONDS)
    events.press_ctrl_c()
    assert events.wait() == 130
    assert "Traceback" not in events.err
    changes = [json.loads(line) for line in events.out.splitlines()]
    assert {(one["subject"], one["id"]) for one in changes} == {("worker", "worker-3")}


def test_closed_pipe_exits_with_141_without_a_traceback(fleet: Master, processes: Processes) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen(
        [FLEETPULSE, "workers"], stdout=writing, stderr=subprocess.PIPE,
        env=processes.environment(FLEETPULSE_URL=fleet.url),
    ) as process:  # fmt: skip
        os.close(writing)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (141, b"")


def test_shell_prompt_history_and_completion(fleet: Master, open_terminal: Open) -> None:
    terminal = open_terminal(FLEETPULSE, "shell", FLEETPULSE_URL=fleet.url)
    terminal.prompts("master> ")
    terminal.type("workers" + ENTER)
    terminal.shows("worker-3")
    terminal.prompts("master> ")
    assert re.search(r"^worker-1 +active", terminal.text, re.MULTILINE)

    terminal.type("sta" + TAB)
    terminal.prompts("master> status")
    terminal.type("worker-1" + ENTER)
    terminal.shows("worker-1.simulated")
    terminal.prompts("master> ")

    terminal.type(UP)
    terminal.prompts("master> status worker-1")
    terminal.type(CTRL_C)
    terminal.prompts("master> ")
    terminal.type("status worker-9" + ENTER)
    terminal.shows("Error: no worker has the id 'worker-9'; did you mean 'worker-")
    terminal.type("events" + ENTER)
    terminal.shows("watching")
    terminal.type(CTRL_C)
    terminal.prompts("^Cmaster> ")
    terminal.type(CTRL_D)
    assert terminal.ends() == 0
    assert b"Traceback" not in terminal.raw

    another = open_terminal(FLEETPULSE, "shell", FLEETPULSE_URL=fleet.url)
    another.prompts("master> ")
    another.type(UP)
    another.prompts("master> events")
    another.type(CTRL_C + "exit" + ENTER)
    assert another.ends() == 0


@pytest.mark.parametrize(("columns", "key", "code"), [(100, "q", 0), (40, CTRL_C, 130)])
def test_top_sorts_filters_and_quits(fleet: Master, open_terminal: Open, columns: int, key: str, code: int) -> None:
    terminal = open_terminal(FLEETPULSE, "top", columns=columns, FLEETPULSE_URL=fleet.url)
    for worker_id in WORKERS:
        terminal.shows(worker_id)
    terminal.shows("3 active; by cpu")
    if columns == 100:
        terminal.shows("CPU LATELY")
    terminal.type("n")
    terminal.shows("by name")
    terminal.until(lambda: re.findall(r"worker-\d", terminal.text) == list(WORKERS), "the order of names")
    terminal.type("/")
    terminal.shows("part of an id")
    terminal.type("worker-2")
    terminal.shows_no_more("worker-3")
    terminal.type("\x1b")
    terminal.shows("worker-3")
    terminal.type(key)
    assert terminal.ends() == code
    assert b"\x1b[?1049l" in terminal.raw  # the screen of before is back
    assert b"Traceback" not in terminal.raw


def test_tables_fit_forty_columns(fleet: Master, open_terminal: Open) -> None:
    workers, status = (
        open_terminal(FLEETPULSE, *words, columns=40, FLEETPULSE_URL=fleet.url)
        for words in (["workers"], ["status", "worker-1"])
    )
    assert workers.ends() == status.ends() == 0
    assert all(re.search(rf"^{worker_id} +active ", workers.text, re.MULTILINE) for worker_id in WORKERS)
    assert "worker-1.simulated" in status.text


def test_no_color_flag_and_variable(fleet: Master, open_terminal: Open) -> None:
    coloured = open_terminal(FLEETPULSE, "workers", FLEETPULSE_URL=fleet.url)
    assert coloured.ends() == 0
    assert b"\x1b[32mactive" in coloured.raw
    for words, env in ((["--no-color"], {}), ([], {"NO_COLOR": "1"})):
        plain = open_terminal(FLEETPULSE, "workers", *words, FLEETPULSE_URL=fleet.url, **env)
        assert plain.ends() == 0
        assert b"\x1b[32m" not in plain.raw
        assert b"active" in plain.raw


class PromptSession(MasterClient):
    """A command that opens a prompt beside what it starts."""

    def __init__(self, open_terminal: Open, *command: str) -> None:
        self.ports = free_port(), free_port()
        super().__init__(self.ports[0])
        flags = ("--http-port", str(self.ports[0]), "--grpc-port", str(self.ports[1]), *FAST_LEASE_FLAGS, "--shell")
        self.terminal = open_terminal(*command, *flags)
        self.terminal.prompts("master> ")

    def assert_all_stopped(self) -> None:
        eventually(lambda: ports_are_closed(*self.ports))
        self.close()


def test_up_shell_logs_to_a_file(open_terminal: Open, processes: Processes) -> None:
    up = PromptSession(open_terminal, FLEETPULSE, "up", "--worker-id", "worker-1")
    assert f"log in {processes.folder}/data/up.log" in up.terminal.text.replace("\n", "")
    eventually(lambda: up.workers().get("worker-1"))
    up.terminal.type("workers" + ENTER)
    up.terminal.shows("worker-1")
    up.terminal.prompts("master> ")
    assert "INFO" not in up.terminal.text
    up.terminal.type("exit" + ENTER)
    assert up.terminal.ends() == 0
    up.assert_all_stopped()
    log = (processes.folder / "data" / "up.log").read_text()
    assert "worker-1: said goodbye" in log
    assert "Traceback" not in log


def test_death_of_a_child_ends_the_prompt(open_terminal: Open) -> None:
    up = PromptSession(open_terminal, FLEETPULSE, "up", "--worker-id", "worker-1")
    (worker,) = (one for one in psutil.Process(up.terminal.pid).children() if "fleetpulse.worker" in one.cmdline())
    worker.kill()
    assert up.terminal.ends() == 1
    assert "The worker ended by itself" in up.terminal.text
    up.assert_all_stopped()


def test_master_shell(open_terminal: Open) -> None:
    master = PromptSession(open_terminal, sys.executable, "-m", "fleetpulse.master")
    master.terminal.type("status" + ENTER)
    master.terminal.shows("healthy")
    master.terminal.send(signal.SIGTERM)
    assert master.terminal.ends() == 0
    master.assert_all_stopped()
