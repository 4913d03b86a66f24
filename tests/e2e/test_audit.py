"""The audit trail of a real master: its entries, crashes, and an unwritable file."""

import json
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.e2e.grpc_client import GrpcClient
from tests.e2e.jobs import Jobs
from tests.e2e.masters import FAST_LEASE_FLAGS, READY_SECONDS, Master, started_master
from tests.e2e.processes import FLEETPULSE, Processes
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

NAME = "audit.jsonl"


def trail_of(processes: Processes) -> Path:
    return processes.folder / "data" / NAME


def entries_of(path: Path) -> list[dict[str, Any]]:
    """The entries of a file. Each complete line must be one."""
    whole, _, _ = path.read_bytes().rpartition(b"\n") if path.exists() else (b"", b"", b"")
    return [json.loads(line) for line in whole.splitlines()]


def submitted(path: Path) -> list[str]:
    """The ids of the tasks whose submission is in the file."""
    return [one["target"].rpartition("/")[2] for one in entries_of(path) if one["action"] == "submit_task"]


def test_entries_are_in_the_file_the_api_and_the_cli(processes: Processes, master: Master) -> None:
    jobs = Jobs(master, "busybox")
    task_id = jobs.submit("true")
    assert jobs.cancel(task_id).status_code == 202
    assert jobs.cancel("task-none").status_code == 404
    with GrpcClient(master.target) as client:
        stream = client.stream()
        stream.register("rack-7")
        stream.send(pb.WorkerMessage(goodbye=pb.Goodbye(reason="bye\n\x1b[2J")))
        stream.finish()
        stream.refusal()
    path = trail_of(processes)
    eventually(lambda: len(entries_of(path)) == 5)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [(one["actor"], one["action"], one["outcome"], one["status"]) for one in entries_of(path)] == [
        ("anonymous", "submit_task", "ok", "201"),
        ("anonymous", "cancel_task", "ok", "202"),
        ("anonymous", "cancel_task", "refused", "404"),
        ("worker:rack-7", "register", "ok", "OK"),
        ("worker:rack-7", "goodbye", "ok", "OK"),
    ]
    assert all(line.isascii() and line.decode().isprintable() for line in path.read_bytes().splitlines())
    entries = master.json("/api/audit")
    assert entries == entries_of(path)[::-1]
    assert master.json("/api/audit?actor=worker:rack-7&action=goodbye")[0]["detail"] == "bye\n\x1b[2J"
    assert len(master.json("/api/audit?outcome=refused&since=-1h")) == 1
    for wrong in ("outcome=none", "cursor=00000000-7"):
        assert master.get(f"/api/audit?{wrong}").status_code == 422
    shown = processes.run(FLEETPULSE, "audit", FLEETPULSE_URL=master.url)
    assert shown.code == 0
    assert [line.split()[2] for line in shown.out.splitlines()[1:]] == [one["actor"] for one in entries]
    assert master.sample("fleetpulse_audit_entries_total") == 5


def test_token_use_and_failed_guess_are_recorded(processes: Processes, master: Master) -> None:
    path = trail_of(processes)
    made = processes.run(FLEETPULSE, "token", "create", "ci", "--role", "submit", "--json")
    secret = json.loads(made.out)["token"]
    eventually(lambda: master.get("/api/tasks").status_code == 401)
    master.session.headers["Authorization"] = f"Bearer {secret}"
    Jobs(master, "busybox").submit("true", env={"PASSWORD": "hunter2"})
    assert master.get("/api/audit").status_code == 403
    master.session.headers["Authorization"] = f"Bearer {secret}x"
    assert master.get("/api/audit").status_code == 401
    del master.session.headers["Authorization"]
    eventually(lambda: entries_of(path)[-1]["status"] == "401" and entries_of(path)[-1]["action"] == "list_audit")
    shown = processes.run(FLEETPULSE, "audit", "--json", "--all", FLEETPULSE_URL=master.url)
    shown_entries = [
        (one["actor"], one["role"], one["source"], one["action"], one["status"]) for one in json.loads(shown.out)
    ]
    assert shown_entries[:3] == [
        ("anonymous", None, "http", "list_audit", "401"),
        ("ci", "submit", "http", "list_audit", "403"),
        ("ci", "submit", "http", "submit_task", "201"),
    ]
    assert ("cli", "create_token") in {(source, action) for _, _, source, action, _ in shown_entries}
    assert secret.rpartition("_")[2] not in path.read_text()
    assert "hunter2" not in path.read_text()


def test_entries_survive_a_kill(processes: Processes, master: Master) -> None:
    jobs, path = Jobs(master, "busybox"), trail_of(processes)
    task_ids = [jobs.submit("true") for _ in range(20)]
    eventually(lambda: submitted(path) == task_ids)
    task_ids += [jobs.submit("true") for _ in range(10)]
    web = master.web_process()
    web.send_signal(signal.SIGKILL)
    eventually(lambda: master.web_process().pid != web.pid and master.is_healthy())
    survived = submitted(path)
    assert survived == task_ids[: len(survived)]
    assert len(survived) >= 20
    later = jobs.submit("true")
    eventually(lambda: submitted(path) == [*survived, later])


def test_follow_gets_every_entry_once_across_restarts(processes: Processes) -> None:
    flags = (*FAST_LEASE_FLAGS, "--audit-file-size", "64KiB")
    master = started_master(processes, *flags)
    jobs, path = Jobs(master, "busybox"), trail_of(processes)
    jobs.submit("true")
    words = (FLEETPULSE, "audit", "-f", "--action", "submit_task")
    lines = processes.start("lines", *words, "--json", FLEETPULSE_URL=master.url)
    table = processes.start("table", *words, "--limit", "1", FLEETPULSE_URL=master.url)
    eventually(lambda: "task-" in lines.out and "task-" in table.out)
    task_ids = [jobs.submit("true") for _ in range(300)]
    eventually(lambda: task_ids[-1] in submitted(path))  # what is not written yet may be lost by a kill
    web = master.web_process()
    web.send_signal(signal.SIGKILL)
    eventually(lambda: master.web_process().pid != web.pid and master.is_healthy())
    task_ids += [jobs.submit("true") for _ in range(5)]
    master.process.send(signal.SIGTERM)
    master.process.wait()
    eventually(lambda: "trying again" in lines.err and "trying again" in table.err)
    master.process = processes.start("master", sys.executable, "-m", "fleetpulse.master", *master.port_flags, *flags)
    eventually(master.is_healthy, READY_SECONDS)
    task_ids += [jobs.submit("true") for _ in range(5)]
    assert path.with_name(f"{NAME}.1").exists()
    eventually(lambda: all(task_ids[-1] in follower.out for follower in (lines, table)))
    for follower in (lines, table):
        follower.press_ctrl_c()
        assert follower.wait() == 130
        assert "Traceback" not in follower.err
    followed = [json.loads(line) for line in lines.out.splitlines()]
    assert [one["target"].rpartition("/")[2] for one in followed[1:]] == task_ids
    assert {one["action"] for one in followed} == {"submit_task"}
    head, _, *rows = table.out.splitlines()
    assert head.split()[:3] == ["TIME", "ACTOR", "ROLE"]
    assert [row.split()[-2].rpartition("/")[2] for row in rows] == task_ids
    master.close()


def test_trail_continues_after_a_torn_line(processes: Processes) -> None:
    path = trail_of(processes)
    path.parent.mkdir()
    path.write_bytes(b'{"time":1.0,"actor":"ci","ro')
    master = started_master(processes, *FAST_LEASE_FLAGS)
    Jobs(master, "busybox").submit("true")
    eventually(lambda: path.read_bytes().count(b"\n") == 2)
    assert [one["action"] for one in master.json("/api/audit")] == ["submit_task"]
    master.close()


def test_full_files_are_rotated_and_read(processes: Processes) -> None:
    master = started_master(processes, *FAST_LEASE_FLAGS, "--audit-file-size", "4KiB")
    jobs = Jobs(master, "busybox")
    task_ids = [jobs.submit("true") for _ in range(50)]
    eventually(lambda: master.sample("fleetpulse_audit_entries_total") == 50)
    files = sorted(trail_of(processes).parent.glob(f"{NAME}*"))
    assert len(files) > 2
    assert all(stat.S_IMODE(one.stat().st_mode) == 0o600 and one.stat().st_size <= 4096 for one in files)
    shown = processes.run(FLEETPULSE, "audit", "--all", "--json", FLEETPULSE_URL=master.url)
    assert [one["target"].rpartition("/")[2] for one in json.loads(shown.out)] == task_ids[::-1]
    master.close()


def test_repeated_guesses_are_summed_up(processes: Processes, master: Master) -> None:
    jobs = Jobs(master, "busybox")
    for number in range(200):
        jobs.cancel(f"task-{number}")
    path = trail_of(processes)
    eventually(lambda: sum(one["repeated"] or 1 for one in entries_of(path)) == 200)
    assert len(entries_of(path)) < 50


def test_unwritable_trail_blocks_no_request(processes: Processes) -> None:
    path = trail_of(processes)
    path.mkdir(parents=True)
    master = started_master(processes, *FAST_LEASE_FLAGS)
    jobs = Jobs(master, "busybox")
    for _ in range(5):
        jobs.submit("true")
    eventually(lambda: master.sample("fleetpulse_audit_entries_dropped_total", "write_failed") == 5)
    assert master.is_healthy()
    assert master.sample("fleetpulse_audit_failures_total") > 0
    assert master.get("/api/audit").status_code == 503
    assert len(master.log_lines("audit trail cannot be written")) == 1
    path.rmdir()
    jobs.submit("true")
    eventually(lambda: len(entries_of(path)) == 2)
    assert [one["action"] for one in entries_of(path)] == ["submit_task", "drop_entries"]
    eventually(lambda: len(master.log_lines("audit trail can be written again; 5 entries were lost")) == 1)
    master.assert_no_errors()
    master.close()
