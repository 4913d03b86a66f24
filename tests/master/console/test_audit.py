"""master.console.audit"""

import json
from typing import Any

from tests.master.console.conftest import Run
from tests.master.console.fake_master import Answer, FakeMaster, problem


def entry(**fields: Any) -> dict[str, Any]:
    """An element of ``/api/audit``."""
    return {
        "time": 1_700_000_000.25, "actor": "ci", "role": "submit", "source": "http", "client": "192.0.2.7",
        "action": "submit_task", "target": "/api/tasks/task-1", "outcome": "ok", "status": "201", "detail": "",
        "repeated": 0,
    } | fields  # fmt: skip


ENTRIES = [entry(), entry(actor="anonymous", role=None, outcome="refused", status="401", detail="no", repeated=41)]


def test_entries_are_listed(run: Run, master: FakeMaster) -> None:
    master.get("/api/audit", ENTRIES)
    head, first, second = run("audit").stdout.splitlines()
    assert head.split()[:3] == ["TIME", "ACTOR", "ROLE"]
    assert first.split()[2:] == ["ci", "submit", "http", "192.0.2.7", "submit_task", "ok", "201", "-",
                                 "/api/tasks/task-1", "-"]  # fmt: skip
    assert second.split()[2:4] == ["anonymous", "-"]
    assert second.split()[-3:] == ["41", "/api/tasks/task-1", "no"]
    assert json.loads(run("audit", "--json").stdout) == ENTRIES


def test_entries_are_safe_for_a_terminal(run: Run, master: FakeMaster) -> None:
    master.get("/api/audit", [entry(target="/\x1b[2J\u202e\n", actor="\x9b31m")])
    text = run("audit").stdout
    assert len(text.splitlines()) == 2
    assert all(line.isprintable() for line in text.splitlines())


def test_filters_are_sent_to_the_master(run: Run, master: FakeMaster) -> None:
    master.get("/api/audit", ENTRIES)
    run("audit", "--since", "2h", "--actor", "ci", "--action", "register", "--outcome", "refused", "--limit", "7")
    assert master.requests[-1].query == {
        "since": "-7200.000s", "actor": "ci", "action": "register", "outcome": "refused", "limit": "7",
    }  # fmt: skip


def test_pages_after_an_empty_page_are_read(run: Run, master: FakeMaster) -> None:
    more = {"Link": '</api/audit?cursor=x>; rel="next"'}
    master.on("GET", "/api/audit", Answer([], headers=more), Answer(ENTRIES, headers=more), Answer(ENTRIES))
    assert len(json.loads(run("audit", "--all", "--json").stdout)) == 4


def test_missing_permission_is_an_error(run: Run, master: FakeMaster) -> None:
    master.on("GET", "/api/audit", problem(403, "no"))
    result = run("audit")
    assert result.exit_code == 1
    assert "this token may not do that" in result.stderr
