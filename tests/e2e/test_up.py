"""``fleetpulse up``: a master and this machine's worker in one command."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.masters import FAST_LEASE_FLAGS, READY_SECONDS, MasterClient
from tests.e2e.processes import FLEETPULSE, Processes, RunningProcess, wait_until_gone
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST, free_port, ports_are_closed

pytestmark = pytest.mark.e2e

WORKER_ID = "this-machine"


class Up(MasterClient):
    """``fleetpulse up`` on free ports."""

    def __init__(self, processes: Processes, *flags: str) -> None:
        http_port, grpc_port = free_port(), free_port()
        super().__init__(http_port)
        self.ports = http_port, grpc_port
        ports = ("--http-port", str(http_port), "--grpc-port", str(grpc_port))
        self.process: RunningProcess = processes.start("up", FLEETPULSE, "up", *ports, "--worker-id", WORKER_ID, *flags)

    def child(self, name: str) -> psutil.Process:
        """Its master (gunicorn's arbiter) or its worker."""
        (child,) = (
            child
            for child in self.process.children()
            if child.ppid() == self.process.pid and f"fleetpulse.{name}" in child.cmdline()
        )
        return child

    def is_reporting(self) -> bool:
        return self.workers().get(WORKER_ID, False) and self.json(f"/telemetry/{WORKER_ID}")["cpu_usage"] is not None

    def assert_ended(self, code: int) -> None:
        assert self.process.wait() == code
        wait_until_gone(self.process.left(), 5.0)
        eventually(lambda: ports_are_closed(*self.ports))


@pytest.fixture
def up(processes: Processes) -> Iterator[Up]:
    up = Up(processes, *FAST_LEASE_FLAGS)
    eventually(up.is_reporting, READY_SECONDS)
    up.process.children()
    yield up
    up.close()


def test_welcome_shows_the_urls(up: Up) -> None:
    for path in ("/telemetry", "/metrics", "/health"):
        assert f"curl -s {up.url}{path}\n" in up.process.out
        assert up.get(path).status_code == 200
    assert f"workers connect to {LOCALHOST}:{up.ports[1]}\n" in up.process.out
    assert "Ctrl-C" in up.process.out


def meminfo_bytes(name: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"/proc/meminfo has no {name}")


def test_readings_agree_with_the_kernel(up: Up) -> None:
    record = up.json("/telemetry")[WORKER_ID]
    assert record["is_active"]
    assert abs(time.time() - record["last_update"]) < 60.0
    assert record["running_tasks"] == []
    assert 0.0 <= record["cpu_usage"] <= 100.0
    assert record["cpu"]["logical_cores"] == os.cpu_count()

    size, used = meminfo_bytes("MemTotal"), meminfo_bytes("MemTotal") - meminfo_bytes("MemAvailable")
    assert record["memory"]["size_bytes"] == size
    assert record["memory"]["used_bytes"] == pytest.approx(used, abs=0.05 * size)
    assert record["memory_usage"] == pytest.approx(100.0 * used / size, abs=5.0)

    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert record["uptime_seconds"] == pytest.approx(uptime, abs=3.0)
    assert record["load"]["load15"] == pytest.approx(float(Path("/proc/loadavg").read_text().split()[2]), abs=0.2)

    root = os.statvfs("/")
    filesystems = {item["mountpoint"]: item for item in record["filesystems"]}
    assert filesystems["/"]["size_bytes"] == root.f_blocks * root.f_frsize
    assert_counters_agree(record)
    assert {report["collector"] for report in record["collectors"] if report["success"]} >= {
        "cpu", "memory", "filesystem", "disk", "network", "load", "uptime",
    }  # fmt: skip


def assert_counters_agree(record: Any) -> None:
    """The record is a moment old, so the kernel's counters are equal or slightly higher."""
    received = {}
    for line in Path("/proc/net/dev").read_text().splitlines()[2:]:
        name, _, numbers = line.partition(":")
        received[name.strip()] = int(numbers.split()[0])
    assert record["network_interfaces"]
    for item in record["network_interfaces"]:
        assert 0 <= received[item["interface"]] - item["received_bytes"] < 100e6
    read = {words[2]: int(words[5]) * 512 for words in map(str.split, Path("/proc/diskstats").read_text().splitlines())}
    for item in record["disk_devices"]:
        assert 0 <= read[item["device"]] - item["read_bytes"] < 1e9


def test_load_on_one_core_is_measured(up: Up) -> None:
    share = 100.0 / (os.cpu_count() or 1)
    burner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        eventually(lambda: up.json(f"/telemetry/{WORKER_ID}")["cpu_usage"] > 0.85 * share)
        ratio = up.sample("fleetpulse_worker_cpu_usage_ratio", WORKER_ID)
        assert 0.5 * share / 100.0 < ratio <= 1.0
    finally:
        burner.kill()
        burner.wait()


def test_ctrl_c_stops_both(up: Up) -> None:
    up.process.press_ctrl_c()
    up.assert_ended(0)
    assert f"worker {WORKER_ID} said goodbye: 'SIGTERM'" in up.process.err
    assert "Traceback" not in up.process.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_and_sighup_stop_both(number: signal.Signals, up: Up) -> None:
    up.process.send(number)
    up.assert_ended(0)


def test_ctrl_c_before_the_master_is_ready(processes: Processes) -> None:
    up = Up(processes)
    eventually(up.process.children, READY_SECONDS)
    up.process.press_ctrl_c()
    up.assert_ended(0)
    assert "Traceback" not in up.process.err


@pytest.mark.parametrize("name", ["worker", "master"])
def test_death_of_one_child_stops_the_other(name: str, up: Up) -> None:
    up.child(name).kill()
    up.assert_ended(1)
    assert f"The {name} ended by itself" in up.process.out


def test_web_process_is_restarted_after_its_death(up: Up) -> None:
    (web,) = (process for process in up.process.children() if process.ppid() == up.child("master").pid)
    web.kill()
    eventually(lambda: web.is_running() is False and up.is_reporting(), READY_SECONDS)
    assert up.process.is_running


def test_port_in_use_is_refused_before_anything_starts(processes: Processes, up: Up) -> None:
    ports = ("--http-port", str(up.ports[0]), "--grpc-port", str(free_port()))
    ended = processes.run(FLEETPULSE, "up", *ports)
    assert ended.code == 2
    assert ended.error_line() == f"HTTP_PORT: cannot listen on {LOCALHOST}:{up.ports[0]}: Address already in use"
    assert ended.out == ""
