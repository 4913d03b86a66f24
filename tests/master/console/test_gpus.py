"""master.console.gpus"""

import json

import pytest

from tests.master.console.conftest import Run
from tests.master.console.fake_master import FakeMaster
from tests.master.console.records import worker

GIB = 2**30
HELD = {
    "index": 3, "uuid": "GPU-d", "name": "NVIDIA H100", "state": "ok", "state_reason": None,
    "utilization_percent": 97.0,
    "memory_used_bytes": 70 * GIB, "memory_size_bytes": 80 * GIB, "temperature_celsius": 61.0, "power_watts": 402.5,
    "is_throttled": False, "process_count": 5,
    "processes": [
        {"pid": 71, "user": "ada", "command": "python", "memory_used_bytes": 5 * GIB},
        {"pid": 72, "user": None, "command": None, "memory_used_bytes": None},
        {"pid": 73, "user": "bob", "command": "torch\x1b[31m", "memory_used_bytes": GIB},
        {"pid": 74, "user": "bob", "command": "x", "memory_used_bytes": GIB},
    ],
}  # fmt: skip
FREE = {"index": 0, "uuid": "GPU-a", "name": "NVIDIA H100", "state": "ok", "process_count": 0, "is_throttled": True}
LOST = {"index": 1, "uuid": "GPU-b", "name": "NVIDIA H100", "state": "lost", "state_reason": "GPU is lost"}


def with_gpus(worker_id: str, *gpus: object, **fields: object) -> dict[str, object]:
    record = worker(worker_id, **fields)
    record["telemetry"]["gpus"] = list(gpus)
    return record


FLEET = [with_gpus("rack-10", HELD), with_gpus("rack-2", FREE, LOST), with_gpus("gone", FREE, is_active=False)]


@pytest.fixture(autouse=True)
def fleet(master: FakeMaster) -> None:
    master.get("/api/workers", FLEET)
    master.get("/workers", {"rack-10": {"is_active": True}})
    master.get("/api/workers/rack-10", FLEET[0])
    master.get("/api/workers/rack-2", FLEET[1])


def test_gpus_of_active_workers_are_listed_with_who_holds_them(run: Run) -> None:
    result = run("gpus")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [line.split() for line in result.stdout.splitlines()[1:]]
    assert [row[:3] for row in rows] == [["rack-2", "0", "throttled"], ["rack-2", "1", "lost"], ["rack-10", "3", "ok"]]
    assert rows[0][-1] == "none"
    assert rows[1][-1] == "-"  # not known, which is not none
    assert "ada python (71) 5.0 GiB, - - (72) -, bob torch (73) 1.0 GiB, 2 more" in result.stdout
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(
    ("flags", "found"), [(["--held"], ["3"]), (["--free"], ["0"]), (["rack-10"], ["3"]), (["rack-2", "--held"], [])]
)
def test_gpus_are_filtered(run: Run, flags: list[str], found: list[str]) -> None:
    assert [line.split()[1] for line in run("gpus", *flags).stdout.splitlines()[1:]] == found


def test_json_has_the_gpus_with_their_workers(run: Run) -> None:
    assert json.loads(run("gpus", "--held", "--json").stdout) == [{"worker_id": "rack-10", **HELD}]


def test_status_of_a_worker_says_who_holds_a_gpu_and_why_one_is_lost(run: Run) -> None:
    assert "gpu 3 held by" in (shown := run("status", "rack-10").stdout)
    assert "ada python (71) 5.0 GiB" in shown
    assert "NVIDIA H100: lost, GPU is lost" in run("status", "rack-2").stdout
