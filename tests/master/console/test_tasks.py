"""master.console.tasks and logs"""

import json
import re

import pytest

from tests.master.console.conftest import Run
from tests.master.console.fake_master import Answer, FakeMaster, event, events, problem
from tests.master.console.records import task

TASKS = [
    task("task-3", "queued", queue_reason="needs 100 CPU cores; the largest has 8", worker_id=None),
    task("task-2", "failed", exit_code=3, error="exit code 3", name="night", labels={"team": "x"}),
    task("task-1", "completed", exit_code=0),
]


@pytest.fixture(autouse=True)
def tasks(master: FakeMaster) -> None:
    master.get("/api/tasks", TASKS)


def test_tasks_are_listed(run: Run) -> None:
    lines = run("tasks").stdout.splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        ["task-3", "queued", "-"], ["task-2", "failed", "worker-1"], ["task-1", "completed", "worker-1"],
    ]  # fmt: skip
    assert lines[1].endswith("needs 100 CPU cores; the largest has 8")
    assert json.loads(run("tasks", "--json").stdout) == TASKS


def test_filters_are_sent_to_the_master(run: Run, master: FakeMaster) -> None:
    run("tasks", "--status", "failed", "--status", "queued", "--worker", "w", "--name", "n", "--limit", "7")
    assert master.requests[-1].query == {"status": "failed,queued", "worker_id": "w", "name": "n", "limit": "7"}
    run("tasks", "--active")
    assert master.requests[-1].query["status"] == "queued,pending,running"
    run("tasks", "--inactive", "--status", "failed")
    assert master.requests[-1].query["status"] == "failed"
    assert len(json.loads(run("tasks", "--label", "team=x", "--json").stdout)) == 1
    assert json.loads(run("tasks", "--active", "--status", "failed", "--json").stdout) == []


def test_all_reads_every_page_and_limit_stops(run: Run, master: FakeMaster) -> None:
    more = Answer(TASKS, headers={"Link": '</api/tasks?cursor=x>; rel="next"'})
    master.on("GET", "/api/tasks", more, more, Answer(TASKS[:1]))
    assert len(json.loads(run("tasks", "--all", "--json").stdout)) == 7
    master.get("/api/tasks", TASKS)
    assert len(json.loads(run("tasks", "--limit", "2", "--json").stdout)) == 2


def test_task_is_shown_with_its_events(run: Run, master: FakeMaster) -> None:
    task_events = [{"time": 1.7e9, "kind": "cancel_requested", "message": "by hand", "attempt": 2}]
    master.get("/api/tasks/task-2", {**TASKS[1], "attempts": [], "events": task_events})
    text = run("task", "task-2").stdout
    for message in ("failed", "exit code 3", "1 cores, 512 MiB, 0 GPUs", "cancel requested (attempt 2): by hand"):
        assert message in text
    assert re.search(r"2023-11-1[45] \d\d:\d\d:\d\d", text)


@pytest.mark.parametrize("words", [["task"], ["cancel"], ["logs"], ["logs", "-f"]])
def test_unknown_id_suggests_a_similar_one(run: Run, master: FakeMaster, words: list[str]) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/logs")):
        master.on(method, f"/api/tasks/task-22{path}", problem(404, "no task has the id 'task-22'"))
    result = run(*words, "task-22")
    assert (result.exit_code, result.stdout) == (4, "")
    assert "did you mean 'task-2'?" in result.stderr


def test_cancel(run: Run, master: FakeMaster) -> None:
    master.on("DELETE", "/api/tasks/task-3", Answer({**TASKS[0], "status": "cancelled"}, 202))
    master.on("DELETE", "/api/tasks/task-2", problem(409, "task-2 has ended: failed"))
    assert run("cancel", "task-3").stdout == "task-3 is cancelled\n"
    result = run("cancel", "task-2", "task-3")
    assert (result.exit_code, result.stderr) == (1, "Error: task-2 has ended: failed\n")
    assert result.stdout == "task-3 is cancelled\n"


def test_pipe_gets_the_unchanged_bytes_of_a_log(run: Run, master: FakeMaster) -> None:
    log = b"\x1b[31mred\xff\n\x00"
    master.on("GET", "/api/tasks/t/logs", Answer(log, content_type="text/plain"))
    assert run("logs", "t", "--tail", "5").stdout_bytes == log
    assert master.requests[-1].query == {"tail": "5", "format": "text"}


def test_log_is_followed_to_its_end(run: Run, master: FakeMaster) -> None:
    pieces = (
        event({"attempt": 1, "worker_id": "w"}, "attempt"), event({"logs": "one\n"}),
        event({"attempt": 2, "worker_id": "v"}, "attempt"), event({"logs": "two\n"}),
        event({"status": "failed", "exit_code": 7, "error": "it said 7"}, "end"),
    )  # fmt: skip
    master.on("GET", "/api/tasks/t/logs", events(*pieces))
    result = run("logs", "-f", "t")
    assert (result.exit_code, result.stdout) == (0, "one\ntwo\n")
    assert result.stderr == "attempt 2 on v\nfailed with exit code 7: it said 7\n"
    lines = [json.loads(line) for line in run("logs", "-f", "t", "--json").stdout.splitlines()]
    assert [line["event"] for line in lines] == ["attempt", "message", "attempt", "message", "end"]
