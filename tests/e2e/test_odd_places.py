"""Workers and masters where parts of the machine are hidden or missing: they say so, and give what is there."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.masters import FAST_LEASE_FLAGS, Master, started_master
from tests.e2e.processes import Processes, RunningProcess
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems, which needs root")

NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--")
NO_DOCKER = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}


def inside(mounts: str, *command: str) -> tuple[str, ...]:
    """The command in a mount namespace of its own, after the shell commands that mount something there."""
    return "unshare", "--mount", "--", "sh", "-ec", f'{mounts}; exec "$@"', "sh", *command


def worker_command(master: Master, *flags: str) -> tuple[str, ...]:
    return sys.executable, "-m", "fleetpulse.worker", "--master", master.target, "--worker-id", "odd", *flags


def readings_of(master: Master) -> dict[str, Any]:
    """The first readings of the worker."""

    def read() -> Any:
        response = master.get("/api/workers/odd/metrics")
        return response.json() if response.status_code == 200 and response.json()["collectors"] else None

    readings: dict[str, Any] = eventually(read)
    return readings


def failed(readings: dict[str, Any]) -> set[str]:
    return {report["collector"] for report in readings["collectors"] if not report["success"]}


@needs_root
@pytest.mark.parametrize("mounts", ["mount -t proc -o subset=pid proc /proc", "mount -t tmpfs none /proc"])
def test_worker_that_sees_no_proc_reports_the_rest(processes: Processes, shared_master: Master, mounts: str) -> None:
    """As with systemd's ProcSubset=pid, and on phones."""
    worker = processes.start("worker", *inside(mounts, *worker_command(shared_master)), **NO_DOCKER)
    readings = readings_of(shared_master)
    assert readings["uptime_seconds"] > 0.0
    assert readings["load"]["load1"] is not None or "load" in failed(readings)
    assert {"cpu", "memory"} <= failed(readings)
    assert ("network" in failed(readings)) == ("tmpfs" in mounts)
    details = shared_master.json("/api/workers/odd")
    assert details["capacity"]["cpu_cores"] == os.cpu_count()
    assert details["boot_time"] is not None
    assert "Traceback" not in worker.err
    for name in failed(readings):
        assert worker.err.count(f"collector {name} fails") == 1
    stop(worker, shared_master)


@needs_root
def test_worker_of_another_user_sees_all_but_processes_with_hidepid(processes: Processes) -> None:
    master = started_master(processes, *FAST_LEASE_FLAGS, "--any-local-user")
    data = processes.folder / "nobody"
    data.mkdir()
    os.chown(data, 65534, 65534)
    command = (*NOBODY, *worker_command(master, "--data-dir", str(data), "--master-user", "root"))
    open_way_to(data)
    worker = processes.start("worker", *inside("mount -t proc -o hidepid=2 proc /proc", *command), **NO_DOCKER)
    readings = readings_of(master)
    assert failed(readings) <= {"gpu"}
    assert readings["memory"]["size_bytes"] > 0
    assert "Traceback" not in worker.err
    stop(worker, master)
    master.close()


@needs_root
def test_master_and_worker_start_without_a_folder_for_temporary_files(processes: Processes) -> None:
    folder = processes.folder
    mounts = f"mount --bind {folder} {folder}; " + "".join(
        f"[ ! -d {name} ] || {{ mount --rbind {name} {name}; mount -o remount,ro,bind {name}; }}; "
        for name in ("/tmp", "/var/tmp", "/usr/tmp")
    )
    prefix = inside(mounts + "cd /sys")
    master = started_master(processes, *FAST_LEASE_FLAGS, prefix=prefix, TMPDIR="", TEMP="", TMP="")
    worker = processes.start("worker", *prefix, *worker_command(master), TMPDIR="", TEMP="", TMP="", **NO_DOCKER)
    readings_of(master)
    stop(worker, master)
    master.close()
    assert "Traceback" not in worker.err + master.process.err


# Proxies


@pytest.fixture
def proxy() -> Iterator[socket.socket]:
    """Something that listens where the environment names a proxy."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20.0)
        yield listener


def url_of(proxy: socket.socket) -> str:
    return f"http://127.0.0.1:{proxy.getsockname()[1]}"


def request_at(proxy: socket.socket) -> str:
    """The first line that a client sends."""
    connection, _ = proxy.accept()
    with connection:
        return connection.recv(1000).decode().partition("\r\n")[0]


def assert_unused(proxy: socket.socket) -> None:
    proxy.setblocking(False)
    with pytest.raises(BlockingIOError):
        proxy.accept()


PROXIES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "grpc_proxy", "all_proxy", "ALL_PROXY")


def test_proxies_of_the_environment_are_not_used(
    processes: Processes, shared_master: Master, proxy: socket.socket
) -> None:
    environment = dict.fromkeys(PROXIES, url_of(proxy)) | NO_DOCKER
    worker = processes.start("worker", *worker_command(shared_master), **environment)
    readings_of(shared_master)
    stop(worker, shared_master)
    assert_unused(proxy)


def test_engine_of_this_machine_is_reached_without_a_proxy(processes: Processes, proxy: socket.socket) -> None:
    environment = dict.fromkeys(PROXIES, url_of(proxy)) | {"DOCKER_HOST": "tcp://127.0.0.1:9"}
    command = (sys.executable, "-m", "fleetpulse.worker", "--master", "127.0.0.1:9")
    worker = processes.start("worker", *command, **environment)
    eventually(lambda: "no Docker Engine answers at tcp://127.0.0.1:9" in worker.err)
    assert_unused(proxy)


FAR = ("--master", "master.invalid:50051", "--insecure-network", "--no-tasks")


def test_proxy_of_the_own_setting_is_asked_for_the_master(processes: Processes, proxy: socket.socket) -> None:
    processes.start("worker", sys.executable, "-m", "fleetpulse.worker", *FAR, FLEETPULSE_PROXY=url_of(proxy))
    assert request_at(proxy) == "CONNECT master.invalid:50051 HTTP/1.1"


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_master_that_no_proxy_names_is_reached_without_the_proxy(
    processes: Processes, proxy: socket.socket, name: str
) -> None:
    environment = {"FLEETPULSE_PROXY": url_of(proxy), name: "other,.invalid"}
    worker = processes.start("worker", sys.executable, "-m", "fleetpulse.worker", *FAR, **environment)
    eventually(lambda: "no stream to the master at master.invalid:50051" in worker.err)
    assert_unused(proxy)


def stop(worker: RunningProcess, master: Master) -> None:
    """The worker says goodbye, so that the next test has the worker id."""
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    eventually(lambda: master.get("/api/workers/odd").status_code == 404)


def open_way_to(folder: Path) -> None:
    """Lets other users through the folders above."""
    for parent in folder.parents:
        if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o1:
            parent.chmod(parent.stat().st_mode | 0o11)
