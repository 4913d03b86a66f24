"""Text from a hostile fleet on a real terminal: no escape sequence gets through"""

import json
import os
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.processes import FLEETPULSE
from tests.e2e.terminal import Terminal
from tests.master.console.fake_master import Answer, FakeMaster, event, events, problem
from tests.master.console.records import task, worker

EVIL = "\x1b]0;evil\x07\x1b[31m\u202eshown\x9b2J\n[bold]:smile:"
RunOnTerminal = Callable[..., bytes]


@pytest.fixture
def run_on_terminal(master: FakeMaster) -> Iterator[RunOnTerminal]:
    """Runs a command on a terminal of 60 columns to its end and returns the output."""
    opened: list[Terminal] = []

    def run_on_terminal(*words: str) -> bytes:
        terminal = Terminal(FLEETPULSE, *words, env={**os.environ, "FLEETPULSE_URL": master.url}, columns=60)
        opened.append(terminal)
        terminal.ends()
        return terminal.raw

    yield run_on_terminal
    for terminal in opened:
        terminal.close()


def assert_harmless(raw: bytes) -> None:
    text = raw.decode()
    assert "shown" in text
    assert "evil" not in text
    assert "\x1b[31m" not in text
    assert not {"\x07", "\x9b", "\u202e"} & set(text)


def test_names_and_errors_are_safe(master: FakeMaster, run_on_terminal: RunOnTerminal) -> None:
    master.get("/api/workers", [worker("w", hostname=EVIL, labels={"zone": EVIL})])
    master.get("/api/tasks/t", task("t", "failed", name=EVIL, error=EVIL, command=[EVIL]))
    wide = run_on_terminal("workers", "-o", "wide")
    assert_harmless(wide)
    assert b"[bold]:smile:" in wide
    assert b"FREE MEMORY" in wide
    assert_harmless(run_on_terminal("task", "t"))


def test_json_is_ascii_on_a_terminal(master: FakeMaster, run_on_terminal: RunOnTerminal) -> None:
    master.get("/api/tasks", [task("t", name=EVIL)])
    raw = run_on_terminal("tasks", "--json")
    assert raw.isascii()
    assert b"\x1b" not in raw
    assert json.loads(raw)[0]["name"] == EVIL


def test_logs_are_safe_unless_raw(master: FakeMaster, run_on_terminal: RunOnTerminal) -> None:
    data = EVIL.encode()
    master.on("GET", "/api/tasks/t/logs", Answer(data, content_type="text/plain"))
    assert_harmless(run_on_terminal("logs", "t"))
    assert b"\x1b]0;evil\x07" in run_on_terminal("logs", "--raw", "t")
    # Cut within a sequence, as the wire may.
    pieces = [
        event({"logs": EVIL[:3]}),
        event({"logs": EVIL[3:]}),
        event({"status": "completed", "exit_code": 0}, "end"),
    ]
    master.on("GET", "/api/tasks/t/logs", events(*pieces))
    assert_harmless(run_on_terminal("logs", "-f", "t"))


@pytest.mark.parametrize(
    "words",
    [("tasks",), ("status", "w"), ("cancel", "t"), ("drain", "w"), ("history", "w"), ("submit", "busybox")],
    ids=lambda words: words[0],
)
def test_output_of_other_commands_is_safe(
    master: FakeMaster, run_on_terminal: RunOnTerminal, words: tuple[str, ...]
) -> None:
    master.get("/api/tasks", [task("t", "queued", queue_reason=EVIL, docker_image=EVIL)])
    telemetry = {"filesystems": [{"mountpoint": EVIL}], "gpus": [{"index": 0, "name": EVIL}]}
    master.get(
        "/api/workers/w",
        worker("w", hostname=EVIL, telemetry=telemetry, tasks={"draining": True, "drain_reason": EVIL}),
    )
    for method, path in (("DELETE", "/api/tasks/t"), ("POST", "/api/workers/w/drain"), ("POST", "/api/tasks")):
        master.on(method, path, problem(409, EVIL))
    master.on("GET", "/telemetry/w/history", problem(422, EVIL))
    assert_harmless(run_on_terminal(*words))
