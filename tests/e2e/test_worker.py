"""A real worker and a real master: stopping, dying, reconnecting, and unreachable masters."""

import os
import signal
import socket
import sys
import time
from typing import Any

import psutil
import pytest

from fleetpulse.proto.join import new_join_token
from tests.e2e.masters import FAST_LEASE_FLAGS, FAST_TIMEOUT_SECONDS, Master, started_master
from tests.e2e.processes import Processes, RunningProcess
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST, free_port

pytestmark = pytest.mark.e2e

WORKER_ID = "rack-7"


def started_worker(processes: Processes, master: Master, *flags: str, **env: str) -> RunningProcess:
    """A worker whose heartbeats reach the master."""
    worker = processes.worker(master.target, "--worker-id", WORKER_ID, *flags, **env)
    eventually(lambda: sends_heartbeats(master))
    return worker


def sends_heartbeats(master: Master) -> bool:
    return bool(master.workers().get(WORKER_ID)) and received(master) > 0


def received(master: Master) -> int:
    count = master.json(f"/api/workers/{WORKER_ID}")["heartbeats"]["received"]
    assert isinstance(count, int)
    return count


def stop(worker: RunningProcess, number: signal.Signals) -> None:
    worker.send(number)
    assert worker.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_worker_says_goodbye_on_a_signal(number: signal.Signals, processes: Processes, master: Master) -> None:
    worker = started_worker(processes, master)
    stop(worker, number)
    assert WORKER_ID not in master.workers()
    assert WORKER_ID not in master.get("/metrics").text
    assert master.log_lines(f"{WORKER_ID} said goodbye: '{number.name}'")
    assert "Traceback" not in worker.err


def test_worker_stops_while_no_master_is_reachable(processes: Processes) -> None:
    worker = processes.worker(f"{LOCALHOST}:{free_port()}", "--worker-id", WORKER_ID)
    eventually(lambda: "no stream to the master" in worker.err)
    stop(worker, signal.SIGTERM)


def test_worker_stops_while_the_master_does_not_answer(processes: Processes) -> None:
    with socket.create_server((LOCALHOST, 0)) as silent:
        port = silent.getsockname()[1]
        worker = processes.worker(f"{LOCALHOST}:{port}")
        eventually(lambda: port in worker.peer_ports())
        stop(worker, signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_worker_stops_while_it_waits_to_join(number: signal.Signals, processes: Processes) -> None:
    """Also as process 1 of a container, for which signals have no default action."""
    address = f"{LOCALHOST}:{free_port()}"
    token = new_join_token(bytes(32)).text()
    worker = processes.worker(address, "--join-address", address, FLEETPULSE_JOIN_TOKEN=token)
    eventually(lambda: "no join port answers" in worker.err)
    stop(worker, number)
    assert "Traceback" not in worker.err


def test_worker_stops_while_the_master_is_suspended(processes: Processes, master: Master) -> None:
    worker = started_worker(processes, master)
    web = master.web_process()
    web.suspend()
    try:
        stop(worker, signal.SIGTERM)
    finally:
        web.resume()


def test_killed_worker_turns_inactive_at_the_timeout_and_comes_back_at_once(
    processes: Processes, master: Master
) -> None:
    worker = processes.worker(master.target)
    (worker_id,) = eventually(lambda: [worker_id for worker_id, is_active in master.workers().items() if is_active])
    eventually(lambda: master.sample("fleetpulse_worker_cpu_logical_cores", worker_id))
    worker.send(signal.SIGKILL)
    assert worker.wait() == -signal.SIGKILL
    last_heartbeat = master.sample("fleetpulse_worker_last_heartbeat_timestamp_seconds", worker_id)

    eventually(lambda: master.samples("fleetpulse_worker_up")[(worker_id,)] == 0.0)
    assert time.time() >= last_heartbeat + FAST_TIMEOUT_SECONDS
    assert master.workers() == {worker_id: False}
    assert master.samples("fleetpulse_worker_cpu_logical_cores") == {}
    assert master.log_lines(f"worker {worker_id} is inactive")

    processes.worker(master.target)
    eventually(lambda: master.workers() == {worker_id: True})
    assert (processes.folder / "data" / "worker_id").read_text() == f"{worker_id}\n"
    assert master.log_lines(f"{worker_id}: a new incarnation took over")


def test_killed_worker_may_come_back_before_the_timeout(processes: Processes) -> None:
    master = started_master(processes)  # 30 s
    worker = started_worker(processes, master)
    worker.send(signal.SIGKILL)
    worker.wait()
    processes.worker(master.target, "--worker-id", WORKER_ID)
    eventually(lambda: master.log_lines(f"{WORKER_ID}: a new incarnation took over"))
    assert not master.log_lines("is taken")


def test_unreachable_master_is_logged_once(processes: Processes) -> None:
    target = f"{LOCALHOST}:{free_port()}"
    worker = processes.worker(target, "--worker-id", WORKER_ID, "--log-level", "debug")
    eventually(lambda: worker.err.count(f"no stream to the master at {target}") >= 5)
    assert logged_lines(worker, "no stream") == 1
    assert "Connection refused" in worker.err


def logged_lines(worker: RunningProcess, text: str) -> int:
    """The log lines with this text, except debug lines."""
    return sum(text in line and " DEBUG " not in line for line in worker.err.splitlines())


def test_worker_connects_when_the_master_starts(processes: Processes) -> None:
    master = Master(processes, *FAST_LEASE_FLAGS)
    master.process.kill_all()
    worker = processes.worker(master.target, "--worker-id", WORKER_ID)
    eventually(lambda: logged_lines(worker, "no stream"))
    processes.start("master", *master.process.command)
    eventually(lambda: sends_heartbeats(master), 20.0)
    assert logged_lines(worker, "no stream") == 1
    assert logged_lines(worker, "connected again after") == 1
    master.close()


def test_wrong_port_is_logged_once_with_its_reason(processes: Processes, master: Master) -> None:
    worker = processes.worker(f"{LOCALHOST}:{master.http_port}", "--worker-id", WORKER_ID, "--log-level", "debug")
    eventually(lambda: worker.err.count("no stream to the master") >= 3)
    assert logged_lines(worker, "no stream") == 1
    (line,) = (line for line in worker.err.splitlines() if " WARNING " in line)
    assert f"at {LOCALHOST}:{master.http_port}" in line
    assert "Trying to connect an http1.x server" in line


def test_second_process_with_the_same_id_waits_until_the_first_ends(processes: Processes, master: Master) -> None:
    first = started_worker(processes, master)
    second = processes.worker(master.target, "--worker-id", WORKER_ID, "--log-level", "debug", name="second")
    eventually(lambda: second.err.count("ALREADY_EXISTS") >= 3)
    assert logged_lines(second, "no stream") == 1
    assert f"worker id {WORKER_ID} is in use: another process with this id beat" in second.err
    assert master.log_lines(f"WARNING.*worker id {WORKER_ID} is taken")
    assert "no stream" not in first.err
    assert sends_heartbeats(master)

    first.send(signal.SIGTERM)
    first.wait()
    eventually(lambda: "connected again" in second.err)
    eventually(lambda: sends_heartbeats(master))


def test_empty_id_variable_counts_as_unset(processes: Processes, master: Master) -> None:
    (processes.folder / "data").mkdir(exist_ok=True)
    (processes.folder / "data" / "worker_id").write_text("kept-from-before\n")
    processes.worker(master.target, FLEETPULSE_WORKER_ID="")
    eventually(lambda: master.workers() == {"kept-from-before": True})


def test_labels_and_capacity_reach_the_master(processes: Processes, master: Master) -> None:
    started_worker(processes, master, "--label", "rack=7", "--label", "site=north side=2")
    details = master.json(f"/api/workers/{WORKER_ID}")
    assert details["labels"] == {"rack": "7", "site": "north side=2"}
    assert details["hostname"] == socket.gethostname()
    assert details["capacity"]["cpu_cores"] == psutil.cpu_count()
    assert details["capacity"]["memory_bytes"] == psutil.virtual_memory().total
    assert details["boot_time"] == pytest.approx(psutil.boot_time(), abs=2.0)


def test_first_cpu_reading_is_not_zero(processes: Processes, master: Master) -> None:
    """All cores are busy, so 0 would be psutil's answer to its first call."""
    burners = [processes.start("burner", "sh", "-c", "while :; do :; done") for _ in range(psutil.cpu_count() or 1)]
    worker = processes.worker(master.target, "--worker-id", WORKER_ID)
    eventually(lambda: master.samples("fleetpulse_worker_cpu_usage_ratio"))
    assert master.sample("fleetpulse_worker_cpu_usage_ratio", WORKER_ID) > 0.5
    for process in (*burners, worker):
        process.kill_all()


def test_threads_and_open_files_do_not_grow(processes: Processes, master: Master) -> None:
    worker = started_worker(processes, master)
    count = received(master)
    handle = psutil.Process(worker.pid)
    before = handle.num_fds(), handle.num_threads()
    eventually(lambda: received(master) >= count + 6)
    assert (handle.num_fds(), handle.num_threads()) == before


OTHER_MACHINE = "192.0.2.1:50051"


def test_worker_without_tls_does_not_start_for_another_machine(processes: Processes) -> None:
    ended = processes.run(sys.executable, "-P", "-m", "fleetpulse.worker", "--master", OTHER_MACHINE)
    assert ended.code == 2
    assert ended.error_line().startswith(
        f"FLEETPULSE_MASTER={OTHER_MACHINE} is another machine, and this worker has no"
    )


@pytest.mark.parametrize("declared", ["flag", "environment"])
def test_worker_reaches_another_machine_without_tls_over_a_trusted_network(declared: str, processes: Processes) -> None:
    flags = ("--insecure-network",) if declared == "flag" else ()
    env = {} if declared == "flag" else {"FLEETPULSE_INSECURE_NETWORK": "true"}
    worker = processes.worker(OTHER_MACHINE, *flags, **env)
    eventually(lambda: f"{OTHER_MACHINE} is reached without TLS" in worker.err)
    assert worker.is_running


def test_cores_are_reported_to_those_who_ask(processes: Processes, shared_master: Master) -> None:
    processes.worker(shared_master.target, "--worker-id", "cored", "--no-tasks")
    path = "/api/workers/cored/metrics"
    eventually(lambda: shared_master.get(path).status_code == 200)
    assert "cores" not in shared_master.json(path)

    def cores() -> Any:
        found = shared_master.json(f"{path}?per_core=true")["cores"]
        return found if found and found[0]["usage_percent"] is not None else None

    assert [core["core"] for core in eventually(cores)] == list(range(os.cpu_count() or 0))
    assert "cores" not in shared_master.json(path)
    assert shared_master.get(f"{path}?per_core=1").status_code == 422
