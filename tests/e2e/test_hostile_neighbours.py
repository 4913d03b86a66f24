"""During an attack other clients are served, and the memory of the web process stays bounded.

Response times are printed, not asserted; ``python -m tests.bench --hostile`` measures them.
"""

import json
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psutil
import pytest

from tests.e2e.masters import FAST_LEASE_FLAGS, Master, started_master
from tests.e2e.processes import Processes, RunningProcess
from tests.e2e.raw import RawConnection
from tests.e2e.waiting import eventually
from tests.hostile.attacks import ATTACKS, IDLE, allow_connections

pytestmark = pytest.mark.e2e

ATTACK_SECONDS = 4.0
TOLERANCE_BYTES = 200_000_000
ATTACKERS = {attack: f"127.0.2.{number}" for number, attack in enumerate(sorted(ATTACKS), 1)}
VICTIM = "127.0.3.1"
PLACES = 10
EXPECTED_OUTCOMES = {
    "answers-not-taken": {"cut"},
    "bad-fields": {"422"},
    "body-to-get": {"200"},
    "deep-json": {"400"},
    "endless-body": {"413"},
    "flood": {"200"},
    "full-queue": {"201", "429"},
    "huge-header": {"431"},
    "idle": set[str](),
    "invented-tasks": {"sent"},
    "many-headers": {"431"},
    "readers": {"200"},
    "slow-body": {"408"},
    "slow-head": {"408"},
    "slow-refused": {"404"},
    "slow-sign-in": {"400", "408"},
    "tiny-chunks": {"400"},
}
"""The outcomes of each attack's requests. Any attack may also be cut, or get 429 when it connects too often."""

SLOW_ATTACKS = {"answers-not-taken", "idle", "slow-body", "slow-head", "slow-sign-in"}
"""Their requests may last longer than this test."""


@pytest.fixture(scope="module")
def master(shared_processes: Processes) -> Iterator[Master]:
    """A master that also limits loopback clients, each with an address of its own, and has a small queue."""
    limits = ("--limit-loopback", "--token-queued-size", "8MiB")
    master = started_master(shared_processes, *FAST_LEASE_FLAGS, *limits)
    yield master
    master.close()
    master.assert_no_errors()


def start(processes: Processes, what: str, master: Master, source: str) -> RunningProcess:
    ports = (str(master.http_port), "--grpc-port", str(master.grpc_port))
    command = (sys.executable, "-m", "tests.hostile", what, *ports, "--from", source)
    process = processes.start(what, *command, PYTHONPATH=":".join(sys.path))
    eventually(lambda: process.out.startswith("ready"), 20.0)
    return process


def report(process: RunningProcess) -> dict[str, Any]:
    """Stops a client and returns its results."""
    process.send(signal.SIGTERM)
    assert process.wait(20.0) == 0, process.err
    results: dict[str, Any] = json.loads(process.out.splitlines()[-1])
    return results


def wait_for_answers(victim: RunningProcess, count: int) -> None:
    eventually(lambda: f"answers {count}\n" in victim.out, 60.0)


def highest_rss(web: psutil.Process, seconds: float) -> int:
    highest, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        highest = max(highest, web.memory_info().rss)
        time.sleep(0.05)
    return highest


@pytest.mark.parametrize("attack", sorted(ATTACKS))
def test_attack_does_not_affect_other_clients(attack: str, master: Master, shared_processes: Processes) -> None:
    web = master.web_process()
    before = web.memory_info().rss
    victim = start(shared_processes, "neighbour", master, VICTIM)
    attacker = start(shared_processes, attack, master, ATTACKERS[attack])
    highest = highest_rss(web, ATTACK_SECONDS)
    wait_for_answers(victim, 10)
    served = report(victim)
    outcomes = report(attacker)
    print(f"{attack}: {outcomes}; {served}; {(highest - before) / 1e6:.0f} MB more")
    if attack == "idle" and allow_connections(IDLE) < IDLE:
        print(f"only {allow_connections(IDLE)} connections: the limit of open files")
    assert served["failures"] == []
    assert served["answers"] > 5
    assert highest < before + TOLERANCE_BYTES
    assert set(outcomes) <= EXPECTED_OUTCOMES[attack] | {"cut", "429"}
    assert outcomes or attack in SLOW_ATTACKS
    assert master.web_process().pid == web.pid


@pytest.mark.parametrize("attack", ["idle", "slow-refused", "slow-sign-in"])
def test_idle_connections_are_cut_for_new_requests(attack: str, processes: Processes) -> None:
    """Without limits for one client the table fills up, and the connections that have waited longest are cut.

    So are those that still send a body before any token is looked at, or one that nobody reads.
    """
    master = started_master(processes, *FAST_LEASE_FLAGS)
    attacker = start(processes, attack, master, ATTACKERS[attack])
    eventually(lambda: master.sample("fleetpulse_http_rejected_total", "idle") > 100, 30.0)
    victim = start(processes, "neighbour", master, VICTIM)
    wait_for_answers(victim, 40)
    served = report(victim)
    print(f"{attack}, all: {served}; {report(attacker)}")
    assert master.sample("fleetpulse_http_connections") <= 2000
    assert master.sample("fleetpulse_http_rejected_total", "connections") == 0
    # On a busy machine a connection may become the oldest before its first request.
    assert len(served["failures"]) <= 0.05 * served["answers"]
    master.close()
    master.assert_no_errors()


def test_flooded_queue_names_its_limit(master: Master, shared_processes: Processes) -> None:
    attacker = start(shared_processes, "full-queue", master, ATTACKERS["full-queue"])
    eventually(lambda: master.sample("fleetpulse_http_rejected_total", "token_queued_bytes") > 0, 30.0)
    report(attacker)


def test_invented_tasks_make_no_series(master: Master, shared_processes: Processes) -> None:
    attacker = start(shared_processes, "invented-tasks", master, ATTACKERS["invented-tasks"])
    eventually(lambda: master.sample("fleetpulse_metrics_names_left_out", "task_not_assigned") >= 1000.0, 30.0)
    assert "invented-" not in master.get("/metrics").text
    assert report(attacker)["sent"] > 0


def begin_body(master: Master, path: str) -> RawConnection:
    """Begins a request, and waits until the master has read its head and waits for its body."""
    connection = RawConnection(master.http_port)
    connection.ask(
        path, "Content-Type: application/json", "Content-Length: 100", "Expect: 100-continue", method="POST", body=b"{"
    )
    assert connection.socket.recv(25, socket.MSG_WAITALL) == b"HTTP/1.1 100 Continue\r\n\r\n"
    return connection


def test_body_of_a_sign_in_makes_room_and_is_small_and_soon(processes: Processes) -> None:
    """No token has been looked at, so whoever has not sent it whole holds no place that another one needs."""
    master = started_master(processes, "--max-connections", str(PLACES))
    master.close()  # its kept connection
    with ExitStack() as opened:
        slow = [opened.enter_context(begin_body(master, "/api/session")) for _ in range(PLACES)]
        with RawConnection(master.http_port) as other:
            assert other.get("/health").status == 200
        broken_off, late = slow[0].answer("POST"), slow[-1].answer("POST")
        assert "ended after 1 of 100 bytes" in broken_off.detail(400)
        assert "after 2 s" in late.detail(408)
    with RawConnection(master.http_port) as large:
        headers = ("Content-Type: application/json", "Content-Length: 5000")
        assert "4096 bytes" in large.get("/api/session", *headers, method="POST").detail(413)
    assert master.sample("fleetpulse_http_rejected_total", "connections") == 0
    assert master.sample("fleetpulse_http_rejected_total", "idle") >= 1
    master.assert_no_errors()
