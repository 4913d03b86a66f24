"""Mutual TLS with real processes: joining."""

import signal
from functools import partial
from pathlib import Path

import grpc
import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto import fleetpulse_pb2_grpc as pb_grpc
from fleetpulse.worker.credentials.bundle import new_key, signing_request
from tests.certificates import new_authority
from tests.e2e.grpc_client import a_heartbeat
from tests.e2e.processes import Processes
from tests.e2e.tls import TlsMaster, has_registered, ids
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST, free_port

pytestmark = pytest.mark.e2e


def test_worker_joins_once_and_restarts_without_a_token(tls: TlsMaster) -> None:
    worker = tls.worker("rack-7", tls.token())
    eventually(lambda: tls.is_active("rack-7"))
    kept = tls.folder("rack-7") / "tls.pem"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert tls.bundle("rack-7").ca_fingerprint == tls.authority.fingerprint
    assert tls.master.sample("fleetpulse_certificates_issued_total", "join") == 1
    worker.send(signal.SIGKILL)
    worker.wait()
    again = tls.worker("rack-7")
    eventually(lambda: "registered at" in again.err)
    assert "has joined" not in again.err
    assert [one.worker_id for one in tls.authority.issued()] == ["rack-7"]
    again.send(signal.SIGTERM)
    assert again.wait() == 0
    eventually(lambda: tls.master.workers() == {})


def test_used_token_is_not_sent_again_and_a_new_token_joins_again(tls: TlsMaster) -> None:
    token = tls.token("rack-7")
    for given in (token, token, tls.token("rack-7")):
        worker = tls.worker("rack-7", given)
        eventually(partial(has_registered, worker))
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
    states = [one.revoked_at is None for one in tls.authority.issued()]
    assert states == [False, True]


def test_token_for_a_prefix_takes_no_id_from_a_live_worker(tls: TlsMaster) -> None:
    worker = tls.worker("sim-1", tls.token("sim-1"))
    eventually(lambda: tls.is_active("sim-1"))
    token = tls.token("sim-*", uses=20)
    thief = tls.worker("sim-1", token, "--data-dir", str(tls.folder("thief")))
    assert thief.wait() == 1
    assert "sim-1 has a certificate" in thief.err
    assert tls.is_active("sim-1")
    assert worker.is_running
    assert [one.revoked_at for one in tls.authority.issued()] == [None]
    eventually(lambda: any(one["detail"].startswith("worker_id_in_use: ") for one in tls.audited("join")))
    # The worker itself may use it: it shows the key that it has.
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    again = tls.worker("sim-1", token)
    eventually(lambda: has_registered(again))
    assert "has joined" in again.err
    assert [one.revoked_at is None for one in tls.authority.issued()] == [False, True]


@pytest.mark.parametrize(
    ("kind", "message", "reason"),
    [
        ("another id", "is not for the worker id refused-1", "worker_id_not_granted"),
        ("another master", "is not the one that the join token is from", None),
        ("expired", "has expired", "token_expired"),
        ("used", "has been used", "token_used"),
        ("wrong", "does not know the join token", "token_unknown"),
    ],
)
def test_refused_token_ends_the_worker_with_one_line(
    shared_tls: TlsMaster, tmp_path: Path, kind: str, message: str, reason: str | None
) -> None:
    before = shared_tls.refused("certificates_refused", reason) if reason else 0.0
    if kind == "another master":
        token = new_authority(tmp_path).new_join_token(60.0)
    elif kind == "expired":
        token = shared_tls.token(lifetime=0.001)
    else:
        token = shared_tls.token("rack-1" if kind == "another id" else None)
    if kind == "used":
        shared_tls.authority.join(token, signing_request(new_key(), next(ids)))
    elif kind == "wrong":
        token = token[:-12] + "A" * 12
    worker = shared_tls.worker("refused-1", token)
    assert worker.wait() == 1
    (line,) = [line for line in worker.err.splitlines() if line.startswith("Error: ")]
    assert message in line
    assert "Traceback" not in worker.err
    assert token not in worker.err
    assert not (shared_tls.folder("refused-1") / "tls.pem").exists()
    if reason:
        assert shared_tls.refused("certificates_refused", reason) == before + 1
        eventually(lambda: any(one["detail"].startswith(f"{reason}: ") for one in shared_tls.audited("join")))
    assert "refused-1" not in shared_tls.master.workers()


def test_join_waits_for_an_unreachable_master(tls: TlsMaster) -> None:
    tls.master.process.send(signal.SIGTERM)
    tls.master.process.wait()
    worker = tls.worker("rack-7", tls.token())
    eventually(lambda: "it will be tried until it works" in worker.err)
    tls.restart()
    eventually(lambda: tls.is_active("rack-7"))


def test_join_needs_a_name_of_the_master_certificate(processes: Processes) -> None:
    tls = TlsMaster(processes, "--grpc-port", f"0.0.0.0:{(port := free_port())}", host="0.0.0.0")
    elsewhere = "127.0.0.2"
    address = ("--join-address", f"{elsewhere}:{tls.join_port}", "--master", f"{elsewhere}:{port}")
    worker = tls.worker("rack-7", tls.token("rack-7"), *address)
    assert worker.wait() == 1
    assert f"not for {elsewhere}: reach it by one of these, or start it with --tls-name {elsewhere}" in worker.err
    tls.restart("--tls-name", f"fleet.example,{elsewhere}")
    tls.worker("rack-7", tls.token("rack-7"), *address)
    eventually(lambda: tls.is_active("rack-7"))
    tls.close()


def test_join_port_limits_guesses_of_a_token(tls: TlsMaster) -> None:
    root = grpc.ssl_channel_credentials(tls.authority.certificate_pem)
    codes = []
    with grpc.secure_channel(f"{LOCALHOST}:{tls.join_port}", root) as channel:
        stub = pb_grpc.EnrollmentStub(channel)
        for _ in range(11):
            with pytest.raises(grpc.RpcError) as caught:
                stub.Join(pb.JoinRequest(token="guess", csr=signing_request(new_key(), "rack-7")), timeout=10)
            codes.append(caught.value.code())
        with pytest.raises(grpc.RpcError) as caught:
            pb_grpc.FleetStub(channel).SendHeartbeat(a_heartbeat("rack-7"), timeout=10)
    assert codes == [grpc.StatusCode.PERMISSION_DENIED] * 10 + [grpc.StatusCode.RESOURCE_EXHAUSTED]
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert tls.refused("certificates_refused", "token_unknown") == 10
    assert tls.refused("certificates_refused", "too_many_attempts") == 1
    # Another machine behind the same address is let in.
    tls.worker("rack-8", tls.token("rack-8"))
    eventually(lambda: tls.is_active("rack-8"))
