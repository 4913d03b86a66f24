"""Other users of the master's machine, while there is no token and after the first one."""

import json
import pwd
import socket
from pathlib import Path

import grpc
import pytest
import requests

from tests.e2e.grpc_client import GrpcClient, Refusal, a_heartbeat, new_worker_id
from tests.e2e.masters import FAST_LEASE_FLAGS, Master, MasterClient, started_master
from tests.e2e.processes import FLEETPULSE, Processes
from tests.e2e.stranger import UID, needs_root, stranger_to
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST

pytestmark = [pytest.mark.e2e, needs_root]

TASK = {"docker_image": "busybox", "env": {"PASSWORD": "secret"}}


def owner_headers(processes: Processes) -> dict[str, str]:
    return {"Authorization": f"Bearer {(processes.folder / 'data' / 'owner-token').read_text().strip()}"}


def submit(client: MasterClient, headers: dict[str, str] | None = None) -> requests.Response:
    return client.session.post(f"{client.url}/api/tasks", json=TASK, headers=headers, timeout=10)


def test_stranger_needs_a_token_where_the_masters_user_needs_none(master: Master, processes: Processes) -> None:
    stranger = MasterClient(stranger_to(processes, master.http_port))
    for path in ("/telemetry", "/metrics", "/api/tasks", "/api/audit", "/api/session", "/telemetry/stream"):
        refused = stranger.get(path)
        assert refused.status_code == 401, path
        assert "fleetpulse token create" in refused.json()["detail"]
    assert submit(stranger).status_code == 401
    assert stranger.is_healthy()
    assert stranger.get("/").status_code == 200
    assert submit(stranger, owner_headers(processes)).status_code == 201
    assert submit(master).status_code == 201
    identity = master.json("/api/session")
    assert (identity["name"], identity["auth_method"]) == ("anonymous", "loopback")
    refusals = master.json("/api/audit?outcome=refused&limit=20")
    assert {entry["status"] for entry in refusals} == {"401"}
    stranger.close()


def test_connection_of_the_masters_user_stays_its_own(master: Master) -> None:
    """A request whose sender has closed its half still counts as its sender's."""
    for _ in range(3):
        assert master.get("/telemetry").status_code == 200
    with socket.create_connection((LOCALHOST, master.http_port), 10.0) as half_closed:
        half_closed.sendall(b"GET /telemetry HTTP/1.1\r\nHost: localhost\r\n\r\n")
        half_closed.shutdown(socket.SHUT_WR)
        assert half_closed.recv(12) == b"HTTP/1.1 200"


@pytest.mark.parametrize("host", [LOCALHOST, "[::1]", "localhost"])
def test_own_user_is_served_on_both_loopbacks(shared_master: Master, host: str) -> None:
    url = f"http://{host}:{shared_master.http_port}"
    with requests.Session() as session:
        session.trust_env = False
        assert session.get(f"{url}/telemetry", timeout=10).status_code == 200
    with GrpcClient(f"{host}:{shared_master.grpc_port}") as client:
        assert client.stream().register(new_worker_id()).master_version


def test_strangers_worker_is_refused_and_gets_no_task(master: Master, processes: Processes, tmp_path: Path) -> None:
    port = stranger_to(processes, master.grpc_port)
    with GrpcClient(f"{LOCALHOST}:{port}") as client:
        stream = client.stream()
        assert_refused(stream.refusal())
        assert_refused(client.send_heartbeat(a_heartbeat(new_worker_id())))
    flags = ("--worker-id", "intruder", "--data-dir", str(tmp_path / "intruder"))
    worker = processes.worker(f"{LOCALHOST}:{port}", *flags, "--master-user", pwd.getpwuid(UID).pw_name)
    eventually(lambda: "fleetpulse ca init" in worker.err, 20.0)
    assert submit(master).status_code == 201
    own = processes.worker(master.target, "--worker-id", "own", name="own", FLEETPULSE_DATA_DIR=str(tmp_path / "own"))
    eventually(lambda: master.workers() == {"own": True} or not own.is_running, 20.0)
    assert master.workers() == {"own": True}
    assert master.sample("fleetpulse_worker_sessions_refused_total", "foreign_user") >= 3
    entries = master.json("/api/audit?outcome=refused&limit=100")
    assert {(entry["action"], entry["status"]) for entry in entries} == {
        ("register", "UNAUTHENTICATED"), ("send_heartbeat", "UNAUTHENTICATED"),
    }  # fmt: skip


def test_first_token_closes_grpc_to_strangers_and_not_to_the_masters_user(processes: Processes) -> None:
    master = started_master(processes, *FAST_LEASE_FLAGS, "--any-local-user")
    stranger = MasterClient(stranger_to(processes, master.http_port))
    target = f"{LOCALHOST}:{stranger_to(processes, master.grpc_port)}"
    assert submit(stranger).status_code == 201
    with GrpcClient(target) as client:
        assert client.stream().register(new_worker_id()).master_version
        assert processes.run(FLEETPULSE, "token", "create", "ci").code == 0
        eventually(lambda: isinstance(client.send_heartbeat(a_heartbeat("early")), Refusal))
        assert_refused(client.send_heartbeat(a_heartbeat("later")))
        assert_refused(client.stream().refusal())
    with GrpcClient(master.target) as own:
        assert own.stream().register(new_worker_id()).master_version
    assert submit(stranger).status_code == submit(master).status_code == 401
    shown = json.loads(processes.run(FLEETPULSE, "workers", "--json", FLEETPULSE_URL=master.url).out)
    assert "later" not in json.dumps(shown)
    master.assert_no_errors()


def assert_refused(result: object) -> None:
    assert isinstance(result, Refusal)
    assert result.code is grpc.StatusCode.UNAUTHENTICATED
    assert "fleetpulse ca init" in result.details
