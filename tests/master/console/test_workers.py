"""master.console.workers and status"""

import json

import pytest

from tests.master.console.conftest import Run
from tests.master.console.fake_master import Answer, FakeMaster, problem
from tests.master.console.records import worker

FLEET = [
    worker("worker-10", labels={"zone": "b"}),
    worker("worker-2", is_active=False, hostname="rack-7.example"),
    worker("worker-1", tasks={"count": 0, "accepted": False, "draining": True, "drain_reason": "new disk"}),
]


@pytest.fixture(autouse=True)
def fleet(master: FakeMaster) -> None:
    master.get("/api/workers", FLEET)
    master.get("/workers", {one["worker_id"]: {"is_active": one["is_active"]} for one in FLEET})
    master.get("/health", {"status": "healthy", "version": "0.1.0"})
    master.get("/api/tasks", [{"task_id": "t", "status": "queued"}])


def ids(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines()[1:]]


def test_workers_are_listed_in_natural_order(run: Run) -> None:
    result = run("workers")
    assert (result.exit_code, result.stderr) == (0, "")
    assert ids(result.stdout) == ["worker-1", "worker-2", "worker-10"]
    assert result.stdout.splitlines()[0].split() == ["WORKER", "STATE", "CPU", "MEMORY", "GPU", "TASKS", "SEEN"]
    assert [line.split()[1] for line in result.stdout.splitlines()[1:]] == ["draining", "inactive", "active"]
    assert "12.3%" in result.stdout


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (["--active"], ["worker-1", "worker-10"]),
        (["--inactive"], ["worker-2"]),
        (["--draining"], ["worker-1"]),
        (["--label", "zone=b"], ["worker-10"]),
        (["--name", "rack-7"], ["worker-2"]),
        (["--name", "worker-?"], ["worker-1", "worker-2"]),
        (["--name", "nobody"], []),
    ],
)
def test_workers_are_filtered(run: Run, flags: list[str], found: list[str]) -> None:
    assert ids(run("workers", *flags).stdout) == found


def test_json_is_the_rest_answer(run: Run) -> None:
    assert json.loads(run("workers", "--json").stdout) == FLEET
    assert json.loads(run("workers", "-o", "json", "--inactive").stdout) == [FLEET[1]]


def test_wide_shows_all_columns(run: Run) -> None:
    assert {"HOST", "CORES", "LABELS", "VERSION"} <= set(run("workers", "-o", "wide").stdout.splitlines()[0].split())


def test_status_of_one_worker(run: Run, master: FakeMaster) -> None:
    master.get("/api/workers/worker-1", FLEET[2])
    text = run("status", "worker-1").stdout
    for message in ("draining: new disk", "12.3%", "4 of 8 free", "25.0%"):
        assert message in text
    assert json.loads(run("status", "worker-1", "--json").stdout) == FLEET[2]


def test_status_shows_filesystems_as_df_does(run: Run, master: FakeMaster) -> None:
    filesystems = [
        {"mountpoint": "/", "used_bytes": 918, "available_bytes": 0, "size_bytes": 1000, "state": "ok"},
        {"mountpoint": "/old", "used_bytes": 1, "size_bytes": 4},
        {"mountpoint": "/nfs", "fstype": "nfs4", "state": "ok"},
        {"mountpoint": "/hung", "state": "error", "state_reason": "it does not answer"},
        {
            "mountpoint": "/ro",
            "used_bytes": 1,
            "size_bytes": 4,
            "state": "read_only",
            "state_reason": "it was writable",
        },
    ]
    details = worker("df")
    details["telemetry"] |= {"filesystems": filesystems, "left_out": [{"collector": "disk", "count": 3}]}
    master.get("/api/workers/df", details)
    lines = {name: text for name, _, text in (row.partition(":") for row in run("status", "df").stdout.splitlines())}
    assert lines["disk /"].split()[0] == "100.0%,"
    assert lines["disk /old"].split()[0] == "25.0%,"
    assert lines["disk /nfs"].strip() == "nfs4"
    assert lines["disk /hung"].strip() == "it does not answer"
    assert lines["disk /ro"].endswith("read-only: it was writable")
    assert lines["disk"].strip() == "3 more are not reported"


def test_status_of_the_fleet(run: Run) -> None:
    text = run("status").stdout
    assert "1 active, 1 draining, 1 inactive" in text
    assert "1 queued, 0 pending, 0 running" in text
    assert json.loads(run("status", "--json").stdout)["workers"] == {"total": 3, "active": 2, "inactive": 1}


def test_inactive_worker_shows_no_refusal(run: Run, master: FakeMaster) -> None:
    master.get("/api/workers/w", worker("w", is_active=False, tasks={"accepted": False, "refusal": "it is inactive"}))
    assert "state:       inactive\n" in run("status", "w").stdout


@pytest.mark.parametrize(("given", "hint"), [("worker-11", "did you mean 'worker-1"), ("zzz", "`fleetpulse workers`")])
@pytest.mark.parametrize("command", ["status", "drain", "undrain"])
def test_unknown_id_suggests_a_similar_one(run: Run, master: FakeMaster, command: str, given: str, hint: str) -> None:
    for method, path in (("GET", ""), ("POST", "/drain"), ("POST", "/undrain")):
        master.on(method, f"/api/workers/{given}{path}", problem(404, f"no worker has the id '{given}'"))
    result = run(command, given)
    assert (result.exit_code, result.stdout) == (4, "")
    assert hint in result.stderr
    assert result.stderr.count("\n") == 1


def test_drain_and_undrain(run: Run, master: FakeMaster) -> None:
    for verb in ("drain", "undrain"):
        master.on(
            "POST", f"/api/workers/worker-1/{verb}", Answer({"worker_id": "worker-1", "draining": verb == "drain"})
        )
    assert run("drain", "worker-1", "--reason", "new disk").stdout == "worker-1 gets no new tasks\n"
    assert master.requests[-1].body == {"reason": "new disk"}
    assert run("undrain", "worker-1").exit_code == 0
    master.on("POST", "/api/workers/none/drain", problem(404, "no worker has the id 'none'"))
    result = run("drain", "none", "worker-1")
    assert (result.exit_code, result.stdout) == (4, "worker-1 gets no new tasks\n")
    assert "no worker has the id 'none'" in result.stderr


@pytest.mark.parametrize(
    "command", [["workers"], ["status"], ["tasks"], ["top", "--once"], ["events"], ["cancel", "x"], ["submit", "x"]]
)
def test_unreachable_master_exits_with_3(run: Run, command: list[str]) -> None:
    result = run(*command, FLEETPULSE_URL="127.0.0.1:1")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("Error: cannot reach the master at http://127.0.0.1:1: Connection refused.")
    assert result.stderr.count("\n") == 1


def test_url_flag_overrides_the_environment(run: Run, master: FakeMaster) -> None:
    assert run("workers", "--url", master.url, FLEETPULSE_URL="127.0.0.1:1").exit_code == 0
    assert run("workers", FLEETPULSE_URL="ftp://x").exit_code == 2


def test_missing_values_are_dashes(run: Run, master: FakeMaster) -> None:
    bare = {"worker_id": "bare", "is_active": True, "telemetry": None, "capacity": None}
    master.get("/api/workers", [bare])
    master.get("/api/workers/bare", bare)
    assert run("workers").stdout.splitlines()[1].split() == ["bare", "active", "-", "-", "-", "-", "-"]
    assert run("status", "bare").exit_code == 0


def test_worker_whose_heartbeats_are_refused_says_so(run: Run, master: FakeMaster) -> None:
    why = "cpu.usage_percent is -1.0; it must be a number from 0 to 100"
    refused = worker("worker-3", heartbeats={"received": 7, "dropped": 0, "missed": 0, "refused": 2, "refusal": why})
    master.get("/api/workers", [*FLEET, refused])
    master.get("/api/workers/worker-3", refused)
    assert [line.split()[1] for line in run("workers", "--name", "worker-3").stdout.splitlines()[1:]] == ["refused"]
    assert f"refused: {why}" in run("status", "worker-3").stdout
