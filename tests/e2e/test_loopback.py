"""Another user of the machine, who would like to be the master at ``localhost``."""

import os
import socket
import sys
from collections.abc import Callable

import pytest

from tests.e2e.masters import READY_SECONDS
from tests.e2e.processes import FLEETPULSE, Processes, RunningProcess
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST, free_port

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a process of another user"),
]

SECRET = "fp_a-token-that-nobody-may-see"
IMPOSTOR = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
server = socket.create_server((sys.argv[1], int(sys.argv[2])), family=family)
print("listens", flush=True)
while True:
    client, _ = server.accept()
    print("got", client.recv(65536), flush=True)
    client.close()
"""


@pytest.fixture
def impostor(processes: Processes) -> Callable[[str, int], RunningProcess]:
    """Starts a process of the user ``nobody`` that prints what it gets."""

    def start(host: str, port: int) -> RunningProcess:
        process = processes.start("impostor", sys.executable, "-I", "-c", IMPOSTOR, host, str(port))
        eventually(lambda: "listens" in process.out or not process.is_running)
        return process

    return start


Impostor = Callable[[str, int], RunningProcess]


def test_a_master_leaves_neither_loopback_to_others(processes: Processes, impostor: Impostor) -> None:
    http_port, grpc_port = free_port(), free_port()
    ports = ("--http-port", f":{http_port}", "--grpc-port", f":{grpc_port}")
    master = processes.start("master", sys.executable, "-P", "-m", "fleetpulse.master", *ports)

    def listens(host: str, port: int) -> bool:
        try:
            socket.create_connection((host, port), timeout=5.0).close()
        except OSError:
            return False
        return True

    for port in (http_port, grpc_port):
        for host in (LOCALHOST, "::1"):
            assert eventually(lambda: listens(host, port), READY_SECONDS)  # noqa: B023 - it is called in this round
            thief = impostor(host, port)
            assert (thief.wait(), "Address already in use" in thief.err) == (1, True)
    assert master.is_running


@pytest.mark.parametrize("setting", ["HTTP_PORT", "GRPC_PORT"])
def test_a_master_does_not_start_beside_a_listener_on_the_other_loopback(
    setting: str, processes: Processes, impostor: Impostor
) -> None:
    port = free_port()
    assert impostor("::1", port).is_running
    ended = processes.run(FLEETPULSE, "master", **{"HTTP_PORT": "0", "GRPC_PORT": "0", setting: str(port)})
    assert ended.error_line() == f"{setting}: cannot listen on [::1]:{port}: Address already in use"


@pytest.mark.parametrize("host", ["::1", LOCALHOST])
def test_a_worker_without_tls_does_not_register_with_another_user(
    host: str, processes: Processes, impostor: Impostor
) -> None:
    port = free_port()
    thief = impostor(host, port)
    worker = processes.worker(f"localhost:{port}")
    told = f"port {port} of this machine is open, and belongs to the user nobody"
    eventually(lambda: told in worker.err)
    assert "got" not in thief.out
    trusting = processes.worker(f"localhost:{port}", "--worker-id", "trusting", FLEETPULSE_MASTER_USER="nobody")
    eventually(lambda: "got" in thief.out)
    assert told not in trusting.err


@pytest.mark.parametrize("host", ["::1", LOCALHOST])
@pytest.mark.parametrize("in_file", [False, True])
def test_a_token_is_not_sent_to_another_user(
    in_file: bool, host: str, processes: Processes, impostor: Impostor
) -> None:
    port = free_port()
    thief = impostor(host, port)
    (processes.folder / "token").write_text(SECRET)
    token = {"FLEETPULSE_TOKEN_FILE": "token"} if in_file else {"FLEETPULSE_TOKEN": SECRET}
    ended = processes.run(FLEETPULSE, "workers", "--url", f"localhost:{port}", **token)
    assert ended.code == 1
    assert ended.error_line().startswith(f"the token is not sent: port {port} of this machine is open, and belongs to")
    assert SECRET not in thief.out
    url = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    processes.run(FLEETPULSE, "workers", "--url", url, FLEETPULSE_MASTER_USER="nobody", **token)
    eventually(lambda: SECRET in thief.out)
