"""What a hostile fleet says, on a real terminal: nothing of it may do anything there"""

import json
import os
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.processes import FLEETPULSE
from tests.e2e.terminal import Terminal
from tests.master.console.fake_master import Answer, FakeMaster, event, events, problem
from tests.master.console.given import task, worker

EVIL = "\x1b]0;evil\x07\x1b[31m\u202eshown\x9b2J\n[bold]:smile:"
Look = Callable[..., bytes]


@pytest.fixture
def look(master: FakeMaster) -> Iterator[Look]:
    """Runs a command on a terminal of 60 columns to its end; what came there."""
    opened: list[Terminal] = []

    def look(*words: str) -> bytes:
        terminal = Terminal(FLEETPULSE, *words, env={**os.environ, "FLEETPULSE_URL": master.url}, columns=60)
        opened.append(terminal)
        terminal.ends()
        return terminal.raw

    yield look
    for terminal in opened:
        terminal.close()


def assert_harmless(raw: bytes) -> None:
    text = raw.decode()
    assert "shown" in text
    assert "evil" not in text
    assert "\x1b[31m" not in text
    assert not {"\x07", "\x9b", "\u202e"} & set(text)


def test_names_and_errors(master: FakeMaster, look: Look) -> None:
    master.get("/api/workers", [worker("w", hostname=EVIL, labels={"zone": EVIL})])
    master.get("/api/tasks/t", task("t", "failed", name=EVIL, error=EVIL, command=[EVIL]))
    wide = look("workers", "-o", "wide")
    assert_harmless(wide)
    assert b"[bold]:smile:" in wide
    assert b"FREE MEMORY" in wide
    assert_harmless(look("task", "t"))


def test_json_is_plain_ascii_there(master: FakeMaster, look: Look) -> None:
    master.get("/api/tasks", [task("t", name=EVIL)])
    raw = look("tasks", "--json")
    assert raw.isascii()
    assert b"\x1b" not in raw
    assert json.loads(raw)[0]["name"] == EVIL


def test_logs(master: FakeMaster, look: Look) -> None:
    data = EVIL.encode()
    master.on("GET", "/api/tasks/t/logs", Answer(data, content_type="text/plain"))
    assert_harmless(look("logs", "t"))
    assert b"\x1b]0;evil\x07" in look("logs", "--raw", "t")
    # Cut within a sequence, as the wire may.
    pieces = [
        event({"logs": EVIL[:3]}),
        event({"logs": EVIL[3:]}),
        event({"status": "completed", "exit_code": 0}, "end"),
    ]
    master.on("GET", "/api/tasks/t/logs", events(*pieces))
    assert_harmless(look("logs", "-f", "t"))


@pytest.mark.parametrize(
    "words",
    [("tasks",), ("status", "w"), ("cancel", "t"), ("drain", "w"), ("history", "w"), ("submit", "busybox")],
    ids=lambda words: words[0],
)
def test_what_other_commands_show(master: FakeMaster, look: Look, words: tuple[str, ...]) -> None:
    master.get("/api/tasks", [task("t", "queued", queue_reason=EVIL, docker_image=EVIL)])
    telemetry = {"filesystems": [{"mountpoint": EVIL}], "gpus": [{"index": 0, "name": EVIL}]}
    master.get(
        "/api/workers/w",
        worker("w", hostname=EVIL, telemetry=telemetry, tasks={"draining": True, "drain_reason": EVIL}),
    )
    for method, path in (("DELETE", "/api/tasks/t"), ("POST", "/api/workers/w/drain"), ("POST", "/api/tasks")):
        master.on(method, path, problem(409, EVIL))
    master.on("GET", "/telemetry/w/history", problem(422, EVIL))
    assert_harmless(look(*words))
