"""Mutual TLS with real processes: who does not get through the handshake, and who hears of it."""

import signal
import socket
import ssl
import sys
from pathlib import Path

import grpc
import psutil
import pytest

from fleetpulse.worker.credentials.bundle import write_bundle
from tests.certificates import joined, new_authority, shown
from tests.e2e.masters import Master
from tests.e2e.processes import Processes
from tests.e2e.tls import TlsMaster, ids, refusal
from tests.e2e.waiting import eventually
from tests.e2e.wire import Wire
from tests.ports import LOCALHOST, free_port

pytestmark = pytest.mark.e2e


def failed_handshakes(tls: TlsMaster, reason: str) -> float:
    return tls.master.sample("fleetpulse_tls_handshakes_failed_total", reason)


@pytest.mark.parametrize(
    ("kind", "reason", "told"),
    [
        ("another CA", "unknown_ca", "unable to get local issuer certificate"),
        ("expired", "certificate_expired", "certificate has expired"),
        ("nothing", "no_certificate", "PEER_DID_NOT_RETURN_A_CERTIFICATE"),
        ("plain", "not_tls", "WRONG_VERSION_NUMBER"),
    ],
)
def test_who_shows_no_good_certificate_does_not_get_through_the_handshake(
    shared_tls: TlsMaster, tmp_path: Path, kind: str, reason: str, told: str
) -> None:
    own = shared_tls.joined(worker_id := next(ids))
    if kind == "plain":
        credentials = None
    elif kind == "nothing":
        credentials = grpc.ssl_channel_credentials(own.ca_pem)
    elif kind == "expired":
        credentials = shown(shared_tls.joined(worker_id, lifetime=60.0, age=120.0))
    else:
        new_authority(tmp_path)
        credentials = shown(joined(tmp_path, worker_id), own)
    before = failed_handshakes(shared_tls, reason)
    assert refusal(Wire(shared_tls.target, credentials), worker_id).code is grpc.StatusCode.UNAVAILABLE
    eventually(lambda: failed_handshakes(shared_tls, reason) > before)
    eventually(lambda: any(told in one["detail"] for one in shared_tls.audited("handshake")))
    entry = next(one for one in shared_tls.audited("handshake") if told in one["detail"])
    assert entry["detail"].startswith(f"{reason}: ")
    assert (entry["actor"], entry["client"], entry["door"]) == ("anonymous", LOCALHOST, "rpc")
    assert (entry["outcome"], entry["target"]) == ("refused", shared_tls.target)
    assert worker_id not in shared_tls.master.workers()
    with shared_tls.wire(shared_tls.joined(worker_id)) as wire:
        wire.stream().register(worker_id)


@pytest.mark.parametrize("reason", ["client_left", "client_refused"])
def test_who_goes_by_itself_was_not_refused(shared_tls: TlsMaster, tmp_path: Path, reason: str) -> None:
    before = failed_handshakes(shared_tls, reason)
    with socket.create_connection((LOCALHOST, shared_tls.master.grpc_port)) as plain:
        if reason == "client_refused":
            stranger = new_authority(tmp_path).certificate_pem.decode()
            context = ssl.create_default_context(cadata=stranger)
            context.maximum_version = ssl.TLSVersion.TLSv1_2  # in which it can be told from garbage
            with pytest.raises(ssl.SSLCertVerificationError):
                context.wrap_socket(plain, server_hostname="localhost")
    eventually(lambda: failed_handshakes(shared_tls, reason) > before)
    assert not [one for one in shared_tls.audited("handshake") if one["detail"].startswith(reason)]


def test_what_a_master_says_while_it_watches_handshakes_is_complete(tls: TlsMaster) -> None:
    """Whatever it writes, and what it is killed with, goes where it would have gone; what the core says does not."""
    assert refusal(Wire(tls.target), "plain-2").code is grpc.StatusCode.UNAVAILABLE
    eventually(lambda: failed_handshakes(tls, "not_tls") > 0)
    web_process = tls.master.web_process()
    stderr = Path(f"/proc/{web_process.pid}/fd/2")
    stderr.write_text("a library has a word\n")
    eventually(lambda: "a library has a word\n" in tls.master.process.err)
    web_process.suspend()
    eventually(lambda: web_process.status() == psutil.STATUS_STOPPED)
    stderr.write_text("its last words\n")
    web_process.kill()
    eventually(lambda: "its last words\n" in tls.master.process.err)
    eventually(tls.master.is_healthy)
    tls.master.process.send(signal.SIGTERM)
    tls.master.process.wait()
    said = tls.master.process.err
    assert said.count("Booting worker with pid") == 2
    assert said.count("the master has stopped") == 1
    assert "andshake" not in said


def test_a_master_that_cannot_start_says_why_while_it_watches_handshakes(tls: TlsMaster) -> None:
    port = tls.master.target.rpartition(":")[2]
    ended = tls.processes.run(
        sys.executable, "-m", "fleetpulse.master", "--http-port", str(free_port()), "--grpc-port", port,
        "--join-port", f"{LOCALHOST}:{free_port()}", FLEETPULSE_DATA_DIR=str(tls.data_dir),
    )  # fmt: skip
    assert ended.code != 0
    assert port in ended.err


def test_a_worker_without_a_certificate_says_what_it_lacks(shared_tls: TlsMaster) -> None:
    worker = shared_tls.worker("plain-1")
    eventually(lambda: "does the master want a certificate" in worker.err)
    assert "plain-1" not in shared_tls.master.workers()
    worker.send(signal.SIGTERM)
    worker.wait()


def test_a_worker_with_a_certificate_goes_nowhere_without_tls(
    shared_tls: TlsMaster, processes: Processes, master: Master
) -> None:
    write_bundle(shared_tls.folder("secured-1") / "tls.pem", shared_tls.joined("secured-1"))
    worker = shared_tls.worker("secured-1", None, "--master", master.target)
    eventually(lambda: "the master does not speak TLS" in worker.err)
    assert master.workers() == {}
    assert "ssl_transport_security" not in worker.err
    worker.send(signal.SIGTERM)
    worker.wait()
