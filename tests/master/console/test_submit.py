"""master.console.submit"""

import json
from pathlib import Path
from typing import Any

import pytest

from fleetpulse.master.console.submit import exit_code, read_env_file, submit_command
from fleetpulse.master.tasks.request import TaskRequest
from tests.master.console.conftest import Run
from tests.master.console.fake_master import Answer, FakeMaster, event, events, problem
from tests.master.console.records import task

CREATED = Answer(task("task-1", "queued"), 201)


@pytest.fixture(autouse=True)
def submit(master: FakeMaster) -> None:
    master.on("POST", "/api/tasks", CREATED)


def test_every_field_of_a_task_has_a_flag_or_an_argument() -> None:
    assert TaskRequest.model_fields.keys() <= {parameter.name for parameter in submit_command.params}


def test_only_given_fields_are_sent(run: Run, master: FakeMaster) -> None:
    result = run("submit", "busybox")
    assert (result.exit_code, result.stdout) == (0, "task-1\n")
    assert master.requests[-1].body == {"docker_image": "busybox"}


def test_all_flags_are_sent(run: Run, master: FakeMaster, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("A=from-file\nB=two words\n")
    words = [
        *("--name", "n", "--cpu", "0.5", "--memory", "2G", "--gpu", "1", "--priority", "9", "--max-retries", "2"),
        *("--timeout", "2h", "-e", "A=1", "-e", "HOME_TOWN", "--label", "team=x"),
        *("--constraint", "zone=a", "--constraint", "zone=b", "--constraint", "gpu=yes"),
    ]
    run("submit", *words, "--env-file", str(tmp_path / "env"), "busybox", "--", "sh", "-c", "exit 3", HOME_TOWN="here")
    body = master.requests[-1].body
    assert body == {
        "docker_image": "busybox", "command": ["sh", "-c", "exit 3"], "name": "n", "cpu_required": 0.5,
        "memory_required": 2048, "gpu_required": 1, "priority": 9, "max_retries": 2, "timeout_seconds": 7200,
        "env": {"A": "1", "B": "two words", "HOME_TOWN": "here"}, "labels": {"team": "x"},
        "constraints": {"zone": ["a", "b"], "gpu": ["yes"]},
    }  # fmt: skip
    assert TaskRequest.model_validate(body).command == ("sh", "-c", "exit 3")


def test_idempotency_key_is_new_unless_given(run: Run, master: FakeMaster) -> None:
    for words in ([], [], ["--idempotency-key", "nightly"]):
        run("submit", *words, "busybox")
    first, second, third = (one.headers["Idempotency-Key"] for one in master.requests)
    assert first != second
    assert third == "nightly"


def test_lost_answer_is_retried_with_the_same_key(run: Run, master: FakeMaster) -> None:
    master.on("POST", "/api/tasks", Answer(is_broken=True), CREATED)
    result = run("submit", "busybox")
    assert (result.exit_code, result.stdout) == (0, "task-1\n")
    first, second = (one.headers["Idempotency-Key"] for one in master.requests)
    assert first == second


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["busybox", "sh", "-c", "x"], 2, "put -- before"),
        (["--memory", "much", "busybox"], 2, "expected MiB"),
        (["-e", "NOT_THERE_AT_ALL", "busybox"], 2, "there is no such variable here"),
        (["--cpu", "nan", "busybox"], 2, "expected a number, not 'nan'"),
        (["--gpu", "inf", "busybox"], 2, "expected a number, not 'inf'"),
        (["--user", "", "busybox"], 2, "leave the option out for the default"),
        (["--memory", "512ib", "busybox"], 2, "expected MiB"),
        ([], 2, "Missing argument 'IMAGE'"),
    ],
)
def test_wrong_usage(run: Run, words: list[str], code: int, message: str) -> None:
    result = run("submit", *words)
    assert result.exit_code == code
    assert message in result.stderr


def test_env_file_is_read_as_docker_does() -> None:
    content = b"\xef\xbb\xbfA=1\n\n  # none\n  B='two  words' # too\r\nC=\nHERE\nspring.datasource-url=x=y\nA=2\n"
    assert read_env_file(content, "f", {"HERE": "h"}) == {
        "A": "2", "B": "'two  words' # too", "C": "", "HERE": "h", "spring.datasource-url": "x=y",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"export A=1", "'export A' cannot be the name of a variable"),
        (b"A = 1", "'A ' cannot be the name of a variable"),
        (b"=1", "'' cannot be the name"),
        (b"A: 1", "'A: 1' cannot be the name"),
        (b"NOWHERE", "there is no variable NOWHERE here; give it as NOWHERE=VALUE"),
        (b"A=\xe9", "it is not UTF-8"),
    ],
)
def test_line_that_is_no_variable_is_refused_with_its_number(
    run: Run, master: FakeMaster, tmp_path: Path, line: bytes, message: str
) -> None:
    (tmp_path / "env").write_bytes(b"GOOD=1\n" + line + b"\nLATER=2\n")
    result = run("submit", "--env-file", str(tmp_path / "env"), "busybox")
    assert result.exit_code == 2
    assert "env, line 2:" in result.stderr
    assert message in result.stderr
    assert master.requests == []


def test_errors_of_the_master_are_shown(run: Run, master: FakeMaster) -> None:
    master.on("POST", "/api/tasks", problem(422, "docker_image must not be empty; cpu_required must be at least 0.01"))
    result = run("submit", "--cpu", "0", "")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: docker_image must not be empty; cpu_required must be at least 0.01\n"
    assert master.requests[-1].body == {"docker_image": "", "cpu_required": 0.0}


def end(status: str, **fields: Any) -> bytes:
    return event({"attempt": 1, "status": status, "exit_code": None, "reason": None, "error": None, **fields}, "end")


def test_wait_prints_the_log_and_shows_progress_on_stderr(run: Run, master: FakeMaster) -> None:
    task_events = [
        {"kind": "submitted", "message": ""},
        {"kind": "preparing", "message": "pulling 5 of 9", "attempt": 1},
    ]
    master.get("/api/tasks/task-1", task("task-1", events=task_events))
    master.on("GET", "/api/tasks/task-1/logs", events(
        event({"status": "queued", "queue_reason": "no worker is there"}, "status"),
        event({"status": "running", "queue_reason": None}, "status"),
        event({"logs": "hi\n"}), end("failed", exit_code=3, error="exit code 3"),
    ))  # fmt: skip
    result = run("submit", "--wait", "busybox")
    assert (result.exit_code, result.stdout) == (3, "hi\n")
    notes = result.stderr.splitlines()
    assert notes[0] == "task-1 submitted"
    assert "task-1 waits: no worker is there" in notes
    assert notes[-1] == "task-1 failed with exit code 3: exit code 3"


@pytest.mark.parametrize(
    ("status", "code", "ends_with"),
    [
        ("completed", 0, 0), ("completed", None, 0), ("failed", 7, 7), ("failed", 137, 137), ("failed", None, 125),
        ("failed", 0, 125), ("failed", 256, 125), ("cancelled", 143, 123), ("cancelled", None, 123),
    ],
)  # fmt: skip
def test_exit_code_of_each_end(status: str, code: int | None, ends_with: int) -> None:
    assert exit_code({"status": status, "exit_code": code}) == ends_with


def test_json_is_the_task(run: Run) -> None:
    assert json.loads(run("submit", "--json", "busybox").stdout)["task_id"] == "task-1"
