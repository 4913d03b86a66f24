"""Under attack other clients are served as before, and the memory of the web process stays bounded.

How fast it is served is printed and not asserted: ``python -m tests.bench --hostile`` measures that.
"""

import json
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.e2e.masters import FAST_LEASE_FLAGS, Master, started_master
from tests.e2e.processes import Processes, RunningProcess
from tests.e2e.waiting import eventually
from tests.hostile.attacks import ATTACKS, IDLE, room_for

pytestmark = pytest.mark.e2e

ATTACK_SECONDS = 4.0
TOLERANCE_BYTES = 200_000_000
ATTACKERS = {attack: f"127.0.2.{number}" for number, attack in enumerate(sorted(ATTACKS), 1)}
VICTIM = "127.0.3.1"
RIGHT_ENDS = {
    "answers-not-taken": {"cut"},
    "body-to-get": {"200"},
    "deep-json": {"400"},
    "endless-body": {"413"},
    "flood": {"200"},
    "huge-header": {"431"},
    "idle": set[str](),
    "many-headers": {"431"},
    "readers": {"200"},
    "slow-body": {"408"},
    "slow-head": {"408"},
    "tiny-chunks": {"400"},
}
"""But for those that any attack may have: cut, and 429 when it came too often."""

PATIENT = {"answers-not-taken", "idle", "slow-body", "slow-head"}
"""They are let for longer than this test lasts."""


@pytest.fixture(scope="module")
def master(shared_processes: Processes) -> Iterator[Master]:
    """It counts clients of this machine too, which come from addresses of their own."""
    master = started_master(shared_processes, *FAST_LEASE_FLAGS, "--limit-loopback")
    yield master
    master.close()
    master.assert_no_errors()


def start(processes: Processes, what: str, master: Master, source: str) -> RunningProcess:
    command = (sys.executable, "-m", "tests.hostile", what, str(master.http_port), "--from", source)
    process = processes.start(what, *command, PYTHONPATH=":".join(sys.path))
    eventually(lambda: process.out.startswith("ready"), 20.0)
    return process


def report(process: RunningProcess) -> dict[str, Any]:
    """What it says at its end."""
    process.send(signal.SIGTERM)
    assert process.wait(20.0) == 0, process.err
    told: dict[str, Any] = json.loads(process.out.splitlines()[-1])
    return told


def wait_for_answers(victim: RunningProcess, count: int) -> None:
    eventually(lambda: f"answers {count}\n" in victim.out, 60.0)


def highest_rss(web: psutil.Process, seconds: float) -> int:
    most, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        most = max(most, web.memory_info().rss)
        time.sleep(0.05)
    return most


@pytest.mark.parametrize("attack", sorted(ATTACKS))
def test_attack_does_not_affect_other_clients(attack: str, master: Master, shared_processes: Processes) -> None:
    web = master.web_process()
    before = web.memory_info().rss
    victim = start(shared_processes, "neighbour", master, VICTIM)
    attacker = start(shared_processes, attack, master, ATTACKERS[attack])
    most = highest_rss(web, ATTACK_SECONDS)
    wait_for_answers(victim, 10)
    served = report(victim)
    ends = report(attacker)
    print(f"{attack}: {ends}; {served}; {(most - before) / 1e6:.0f} MB more")
    if attack == "idle" and room_for(IDLE) < IDLE:
        print(f"only {room_for(IDLE)} connections, which is as many files as this process may open")
    assert served["failures"] == []
    assert served["answers"] > 5
    assert most < before + TOLERANCE_BYTES
    assert set(ends) <= RIGHT_ENDS[attack] | {"cut", "429"}
    assert ends or attack in PATIENT
    assert master.web_process().pid == web.pid


def test_idle_connections_are_cut_for_new_requests(processes: Processes) -> None:
    """Without limits for one client: the table of all connections is full, and the oldest go."""
    master = started_master(processes, *FAST_LEASE_FLAGS)
    attacker = start(processes, "idle", master, ATTACKERS["idle"])
    eventually(lambda: master.sample("fleetpulse_http_rejected_total", "idle") > 100, 30.0)
    victim = start(processes, "neighbour", master, VICTIM)
    wait_for_answers(victim, 40)
    served = report(victim)
    print(f"idle, all: {served}")
    report(attacker)
    assert master.sample("fleetpulse_http_connections") <= 2000
    # On a busy machine, a client may need so long between connecting and asking that its connection is the oldest.
    assert len(served["failures"]) <= 0.05 * served["answers"]
    master.close()
    master.assert_no_errors()
