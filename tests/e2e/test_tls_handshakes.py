"""Mutual TLS with real processes: failed handshakes and their errors."""

import signal
import socket
import sys
from pathlib import Path

import grpc
import pytest

from fleetpulse.worker.credentials.bundle import write_bundle
from tests.certificates import channel_credentials, issued_bundle, new_authority
from tests.e2e.grpc_client import GrpcClient
from tests.e2e.masters import Master
from tests.e2e.processes import Processes
from tests.e2e.tls import TlsMaster, ids, refusal
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST, free_port

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("kind", ["another CA", "expired", "nothing", "plain"])
def test_handshake_without_a_valid_certificate_is_refused(shared_tls: TlsMaster, tmp_path: Path, kind: str) -> None:
    own = shared_tls.issued_bundle(worker_id := next(ids))
    if kind == "plain":
        credentials = None
    elif kind == "nothing":
        credentials = grpc.ssl_channel_credentials(own.ca_pem)
    elif kind == "expired":
        credentials = channel_credentials(shared_tls.issued_bundle(worker_id, lifetime=60.0, age=120.0))
    else:
        new_authority(tmp_path)
        credentials = channel_credentials(issued_bundle(tmp_path, worker_id), own)
    assert refusal(GrpcClient(shared_tls.target, credentials), worker_id).code is grpc.StatusCode.UNAVAILABLE
    assert worker_id not in shared_tls.master.workers()
    with shared_tls.connect(shared_tls.issued_bundle(worker_id)) as client:
        client.stream().register(worker_id)


def test_handshake_may_take_longer_than_without_tls(shared_tls: TlsMaster) -> None:
    """A master whose whole fleet comes back is that slow itself."""
    port = int(shared_tls.target.rpartition(":")[2])
    with socket.create_connection((LOCALHOST, port), timeout=12.0) as silent, pytest.raises(TimeoutError):
        silent.recv(1)


def test_master_with_a_ca_names_the_port_that_is_taken(tls: TlsMaster) -> None:
    port = tls.master.target.rpartition(":")[2]
    ended = tls.processes.run(
        sys.executable, "-m", "fleetpulse.master", "--http-port", str(free_port()), "--grpc-port", port,
        "--join-port", f"{LOCALHOST}:{free_port()}", FLEETPULSE_DATA_DIR=str(tls.data_dir),
    )  # fmt: skip
    assert ended.code != 0
    assert port in ended.err


def test_worker_without_a_certificate_logs_that_it_may_need_one(shared_tls: TlsMaster) -> None:
    worker = shared_tls.worker("plain-1")
    eventually(lambda: "does the master want a certificate" in worker.err)
    assert "plain-1" not in shared_tls.master.workers()
    worker.send(signal.SIGTERM)
    worker.wait()


def test_worker_with_a_certificate_does_not_use_a_master_without_tls(
    shared_tls: TlsMaster, processes: Processes, master: Master
) -> None:
    write_bundle(shared_tls.folder("secured-1") / "tls.pem", shared_tls.issued_bundle("secured-1"))
    worker = shared_tls.worker("secured-1", None, "--master", master.target)
    eventually(lambda: "the master does not speak TLS" in worker.err)
    assert master.workers() == {}
    assert "ssl_transport_security" not in worker.err
    worker.send(signal.SIGTERM)
    worker.wait()
