"""The master as processes: stops, crashes, and invalid settings."""

import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import grpc
import pytest
import requests

from tests.e2e.grpc_client import GrpcClient
from tests.e2e.masters import FAST_LEASE_FLAGS, Master, MasterClient, started_master
from tests.e2e.processes import Processes, wait_until_gone
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST, free_port, ports_are_closed

pytestmark = pytest.mark.e2e

STOP_SECONDS = 30.0


def stop(master: Master, number: signal.Signals = signal.SIGTERM) -> None:
    """Asserts that the whole master exits with 0 before a supervisor would kill it."""
    master.process.send(number)
    assert master.process.wait(STOP_SECONDS) == 0
    wait_until_gone(master.process.left(), STOP_SECONDS)


def test_health(processes: Processes) -> None:
    master = started_master(processes)
    health = master.json("/health")
    assert health["status"] == "healthy"
    assert abs(time.time() - health["time"]) < 60.0
    master.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_master_stops(number: signal.Signals, master: Master) -> None:
    """Its client keeps a connection open, as a browser and Prometheus do."""
    assert master.is_healthy()
    stop(master, number)


def test_stopping_master_tells_the_workers(master: Master) -> None:
    with GrpcClient(master.target) as client:
        stream = client.stream()
        stream.register("rack-7")
        stop(master)
        assert stream.refusal() == (grpc.StatusCode.UNAVAILABLE, "the master is stopping")
    assert master.log_lines("the master has stopped")


def test_ctrl_c(master: Master) -> None:
    master.process.press_ctrl_c()
    assert master.process.wait(STOP_SECONDS) == 0
    wait_until_gone(master.process.left(), STOP_SECONDS)


@contextmanager
def asking(master: Master, clients: int) -> Iterator[list[int]]:
    """Clients that send requests over kept-alive connections without a pause. Yields the statuses of the answers."""
    statuses: list[int] = []
    enough = threading.Event()

    def ask(path: str) -> None:
        client = MasterClient(master.http_port)
        while not enough.is_set():
            try:
                statuses.append(client.get(path).status_code)
            except requests.RequestException:
                enough.wait(0.05)
        client.close()

    paths = ("/telemetry", "/metrics", "/workers", "/health")
    threads = [threading.Thread(target=ask, args=(paths[number % len(paths)],)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        enough.set()
        for thread in threads:
            thread.join()


def test_master_stops_under_load(processes: Processes, master: Master) -> None:
    fleet = processes.simulate(master.target, 200)
    with asking(master, 8) as statuses:
        eventually(lambda: master.active() == 200, 30.0)
        eventually(lambda: len(statuses) > 50)
        stop(master)
    assert set(statuses) == {200}
    assert fleet.is_running


def test_fleet_returns_after_the_web_process_died(processes: Processes) -> None:
    master = started_master(processes)
    processes.simulate(master.target, 50)
    eventually(lambda: master.active() == 50, 20.0)
    first = master.web_process()
    first.kill()
    wait_until_gone([first], STOP_SECONDS)
    eventually(lambda: master.active() == 50, 30.0)
    assert master.web_process().pid != first.pid
    assert master.process.is_running
    assert not master.log_lines("is taken|Traceback")
    master.close()


def test_sighup_replaces_the_web_process_and_the_fleet_returns(processes: Processes, master: Master) -> None:
    processes.simulate(master.target, 50)
    eventually(lambda: master.active() == 50)
    for _ in range(3):
        before = master.web_process()
        master.process.send(signal.SIGHUP)
        wait_until_gone([before], STOP_SECONDS)
        eventually(lambda: master.active() == 50)
    assert master.process.is_running
    stop(master)


@pytest.mark.parametrize("number", [signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2])
def test_signal_for_another_number_of_processes_is_refused(number: signal.Signals, master: Master) -> None:
    before = master.web_process()
    master.process.send(number)
    eventually(lambda: master.log_lines("A master is exactly one web process"))
    assert master.is_healthy()
    assert master.web_process() == before


def test_web_process_does_not_outlive_its_arbiter(master: Master) -> None:
    web = master.web_process()
    master.process.send(signal.SIGKILL)
    assert master.process.wait() == -signal.SIGKILL
    wait_until_gone([web], STOP_SECONDS)
    # A process counts as ended with its first thread, but its files close with its last.
    for port in (master.http_port, master.grpc_port):
        eventually(partial(is_closed, port), STOP_SECONDS)


def is_closed(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOCALHOST, port)) != 0


REFUSED = {
    "port that is none": ({"HTTP_PORT": "abc"}, (), "HTTP_PORT='abc': expected a port"),
    "port too high": ({"GRPC_PORT": ":65536"}, (), "GRPC_PORT=':65536': expected a port"),
    "host that is none": ({"HTTP_PORT": "not a host:80"}, (), "'not a host' is not a host"),
    "address of another machine": ({"GRPC_PORT": "192.0.2.1:50051"}, (), "GRPC_PORT: cannot listen on 192.0.2.1:50051"),
    "timeout too short": ({"INACTIVITY_TIMEOUT": "9.9s"}, (), "INACTIVITY_TIMEOUT (9.9 s) must be at least twice"),
    "interval too long": ({}, ("--heartbeat-interval", "16s"), "HEARTBEAT_INTERVAL (16 s)"),
    "no duration": ({"HEARTBEAT_INTERVAL": "soon"}, (), "HEARTBEAT_INTERVAL='soon': expected a duration"),
    "no time at all": ({"INACTIVITY_TIMEOUT": "0"}, (), "INACTIVITY_TIMEOUT='0': expected a duration above 0"),
    "several processes": ({"WEB_CONCURRENCY": "4"}, (), "WEB_CONCURRENCY=4: a master is exactly one web process"),
    "no workers": ({}, ("--max-workers", "0"), "Invalid value for '--max-workers'"),
    "unknown flag": ({}, ("--http-prot", "8080"), "No such option"),
    "unknown level": ({"FLEETPULSE_LOG_LEVEL": "loud"}, (), "'loud' is not one of"),
}


@pytest.mark.parametrize(("env", "flags", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_invalid_setting_is_refused(
    env: dict[str, str], flags: tuple[str, ...], message: str, processes: Processes
) -> None:
    ports = {"HTTP_PORT": str(free_port()), "GRPC_PORT": str(free_port())}
    ended = processes.run(sys.executable, "-m", "fleetpulse.master", *flags, **(ports | env))
    assert ended.code == 2
    assert message in ended.error_line()


@pytest.mark.parametrize("name", ["HTTP_PORT", "GRPC_PORT"])
def test_port_in_use_is_refused(name: str, processes: Processes) -> None:
    with socket.create_server((LOCALHOST, 0)) as holder:
        port = holder.getsockname()[1]
        ports = {"HTTP_PORT": str(free_port()), "GRPC_PORT": str(free_port()), name: str(port)}
        ended = processes.run(sys.executable, "-m", "fleetpulse.master", **ports)
    assert ended.code == 2
    assert ended.error_line() == f"{name}: cannot listen on {LOCALHOST}:{port}: Address already in use"


def test_second_master_on_the_same_grpc_port_is_refused(processes: Processes, master: Master) -> None:
    ports = ("--http-port", str(free_port()), "--grpc-port", str(master.grpc_port))
    ended = processes.run(sys.executable, "-m", "fleetpulse.master", *ports)
    assert ended.code == 2
    assert ended.error_line() == f"GRPC_PORT: cannot listen on {master.target}: Address already in use"
    assert master.is_healthy()


def test_port_settings_accept_a_host(processes: Processes) -> None:
    http_port, grpc_port = free_port(), free_port()
    processes.start(
        "master",
        sys.executable,
        "-m",
        "fleetpulse.master",
        *FAST_LEASE_FLAGS,
        HTTP_PORT=f"127.0.0.2:{http_port}",
        GRPC_PORT=f":{grpc_port}",
    )
    elsewhere = requests.Session()
    elsewhere.trust_env = False
    eventually(lambda: elsewhere.get(f"http://127.0.0.2:{http_port}/health", timeout=5).status_code == 200, 20.0)
    elsewhere.close()
    assert ports_are_closed(http_port)
    assert not ports_are_closed(grpc_port)
