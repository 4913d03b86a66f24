"""Mutual TLS with real processes: who joins, who is let in, who is let go."""

import itertools
import json
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from master.pki.authority import Authority
from proto import fleetpulse_pb2 as pb
from proto import fleetpulse_pb2_grpc as pb_grpc
from tests.certificates import joined, new_authority, shown
from tests.e2e.masters import FAST_TERMS, READY_SECONDS, Door, Master, started_master
from tests.e2e.processes import FLEETPULSE, LOCALHOST, Processes, Started, free_port
from tests.e2e.waiting import eventually
from tests.e2e.wire import PATIENCE_SECONDS, Refusal, Stream, Wire, a_heartbeat
from worker.credentials.bundle import Bundle, new_key, read_bundle, signing_request, write_bundle

pytestmark = pytest.mark.e2e

QUIET = ("--no-tasks", "--no-plugins")


class TlsMaster:
    """A master with a CA, and what an administrator of it does."""

    def __init__(self, processes: Processes, *flags: str, host: str = LOCALHOST) -> None:
        self.processes = processes
        self.data_dir = processes.folder / "data"
        self.authority = new_authority(self.data_dir)
        self.join_port = free_port()
        flags = (*FAST_TERMS, "--join-port", f"{host}:{self.join_port}", *flags)
        self.master = started_master(processes, *flags)
        self._flags = flags
        self._again = 0

    @property
    def target(self) -> str:
        return self.master.target

    def token(self, worker_id: str | None = None, lifetime: float = 60.0, uses: int = 1) -> str:
        return self.authority.new_join_token(lifetime, worker_id, uses)

    def worker(self, worker_id: str, token: str | None = None, *flags: str) -> Started:
        """A worker with a data directory of its own."""
        env = {"FLEETPULSE_DATA_DIR": str(self.folder(worker_id)), "FLEETPULSE_WORKER_ID": worker_id}
        if token is not None:
            env["FLEETPULSE_JOIN_TOKEN"] = token
        address = ("--join-address", f"{LOCALHOST}:{self.join_port}")
        return self.processes.worker(self.target, *address, *QUIET, *flags, name=worker_id, **env)

    def folder(self, worker_id: str) -> Path:
        return self.processes.folder / f"data-{worker_id}"

    def bundle(self, worker_id: str) -> Bundle:
        """What the worker keeps."""
        bundle = read_bundle(self.folder(worker_id) / "tls.pem")
        assert bundle is not None
        return bundle

    def joined(self, worker_id: str, lifetime: float = 3600.0, age: float = 0.0) -> Bundle:
        """What a worker that a test speaks for has."""
        return joined(self.data_dir, worker_id, lifetime, age)

    def wire(self, bundle: Bundle) -> Wire:
        return Wire(self.target, shown(bundle))

    def ca(self, *words: str) -> str:
        """Run ``fleetpulse ca``, as an administrator does; what it says on stdout."""
        ended = self.processes.run(FLEETPULSE, "ca", *words)
        assert ended.code == 0, ended.err
        return ended.out

    def is_active(self, worker_id: str) -> bool:
        return self.master.workers().get(worker_id, False)

    def refused(self, what: str, reason: str) -> float:
        return self.master.sample(f"fleetpulse_{what}_total", reason)

    def audited(self, action: str) -> list[dict[str, Any]]:
        """The entries of the trail, the newest first."""
        entries: list[dict[str, Any]] = self.master.json(f"/api/audit?action={action}")
        return entries

    def restart(self) -> None:
        """The same master on the same ports, after the old one has ended."""
        self.master.process.send(signal.SIGTERM)
        self.master.process.wait()
        self.master.process = self.processes.start(
            "master", sys.executable, "-m", "master", *self.master.port_flags, *self._flags
        )
        eventually(self.master.is_healthy, READY_SECONDS)

    def close(self) -> None:
        self.master.close()
        self.master.assert_nothing_went_wrong()


@pytest.fixture
def tls(processes: Processes) -> Iterator[TlsMaster]:
    """For one test."""
    tls = TlsMaster(processes)
    yield tls
    tls.close()


@pytest.fixture(scope="module")
def shared(shared_processes: Processes) -> Iterator[TlsMaster]:
    """For the tests that leave it as they found it."""
    tls = TlsMaster(shared_processes)
    yield tls
    tls.close()


ids = map("by-hand-{}".format, itertools.count(1))


def registered(wire: Wire, worker_id: str) -> Stream:
    """A stream on which a worker that could run tasks has registered, and beats once."""
    stream = wire.stream()
    register = pb.Register(
        worker_id=worker_id,
        incarnation_id="one",
        capacity=pb.Capacity(cpu_cores=4, memory_bytes=8 << 30),
        task_support=pb.TaskSupport(available=True),
    )
    stream.send(pb.WorkerMessage(register=register))
    assert next(stream._call).WhichOneof("message") == "registered"
    stream.beat(a_heartbeat(worker_id))
    return stream


def has_registered(worker: Started) -> bool:
    return "registered at" in worker.err


# Joining


def test_a_worker_joins_and_needs_no_token_when_it_comes_back(tls: TlsMaster) -> None:
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


def test_a_token_that_was_used_before_is_not_asked_for_again_and_a_new_one_is(tls: TlsMaster) -> None:
    token = tls.token("rack-7")
    for given in (token, token, tls.token("rack-7")):
        worker = tls.worker("rack-7", given)
        eventually(partial(has_registered, worker))
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
    states = [one.revoked_at is None for one in tls.authority.issued()]
    assert states == [False, True]


@pytest.mark.parametrize(
    ("kind", "says", "reason"),
    [
        ("another id", "is not for the worker id refused-1", "worker_id_not_granted"),
        ("another master", "is not the one that the join token is from", None),
        ("expired", "has expired", "token_expired"),
        ("used", "has been used", "token_used"),
        ("wrong", "does not know the join token", "token_unknown"),
    ],
)
def test_a_token_that_is_not_good_ends_the_worker_with_one_line(
    shared: TlsMaster, tmp_path: Path, kind: str, says: str, reason: str | None
) -> None:
    before = shared.refused("certificates_refused", reason) if reason else 0.0
    if kind == "another master":
        token = new_authority(tmp_path).new_join_token(60.0)
    elif kind == "expired":
        token = shared.token(lifetime=0.001)
    else:
        token = shared.token("rack-1" if kind == "another id" else None)
    if kind == "used":
        shared.authority.join(token, signing_request(new_key(), next(ids)))
    elif kind == "wrong":
        token = token[:-12] + "A" * 12
    worker = shared.worker("refused-1", token)
    assert worker.wait() == 1
    (line,) = [line for line in worker.err.splitlines() if line.startswith("Error: ")]
    assert says in line
    assert "Traceback" not in worker.err
    assert token not in worker.err
    assert not (shared.folder("refused-1") / "tls.pem").exists()
    if reason:
        assert shared.refused("certificates_refused", reason) == before + 1
        eventually(lambda: any(one["detail"].startswith(f"{reason}: ") for one in shared.audited("join")))
    assert "refused-1" not in shared.master.workers()


def test_a_join_waits_for_its_master(tls: TlsMaster) -> None:
    tls.master.process.send(signal.SIGTERM)
    tls.master.process.wait()
    worker = tls.worker("rack-7", tls.token())
    eventually(lambda: "it will be tried until it works" in worker.err)
    tls.restart()
    eventually(lambda: tls.is_active("rack-7"))


def test_a_master_is_reached_by_the_names_that_it_was_given(processes: Processes) -> None:
    tls = TlsMaster(processes, "--grpc-port", f"0.0.0.0:{(port := free_port())}", host="0.0.0.0")
    elsewhere = "127.0.0.2"
    address = ("--join-address", f"{elsewhere}:{tls.join_port}", "--master", f"{elsewhere}:{port}")
    worker = tls.worker("rack-7", tls.token("rack-7"), *address)
    assert worker.wait() == 1
    assert f"not for {elsewhere}: reach it by one of these, or start it with --tls-name {elsewhere}" in worker.err
    tls._flags = (*tls._flags, "--tls-name", f"fleet.example,{elsewhere}")
    tls.restart()
    tls.worker("rack-7", tls.token("rack-7"), *address)
    eventually(lambda: tls.is_active("rack-7"))
    tls.close()


def test_the_join_port_stops_listening_to_who_guesses(tls: TlsMaster) -> None:
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


# Who is let in


def refusal(wire: Wire, worker_id: str) -> Refusal:
    """How a master answers who wants to register."""
    with wire:
        stream = wire.stream()
        stream.send(pb.WorkerMessage(register=pb.Register(worker_id=worker_id, incarnation_id="one")))
        return stream.refusal()


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
    shared: TlsMaster, tmp_path: Path, kind: str, reason: str, told: str
) -> None:
    own = shared.joined(worker_id := next(ids))
    if kind == "plain":
        credentials = None
    elif kind == "nothing":
        credentials = grpc.ssl_channel_credentials(own.ca_pem)
    elif kind == "expired":
        credentials = shown(shared.joined(worker_id, lifetime=60.0, age=120.0))
    else:
        new_authority(tmp_path)
        credentials = shown(joined(tmp_path, worker_id), own)
    before = failed_handshakes(shared, reason)
    assert refusal(Wire(shared.target, credentials), worker_id).code is grpc.StatusCode.UNAVAILABLE
    eventually(lambda: failed_handshakes(shared, reason) > before)
    eventually(lambda: any(told in one["detail"] for one in shared.audited("handshake")))
    entry = next(one for one in shared.audited("handshake") if told in one["detail"])
    assert entry["detail"].startswith(f"{reason}: ")
    assert (entry["actor"], entry["client"], entry["door"]) == ("anonymous", LOCALHOST, "rpc")
    assert (entry["outcome"], entry["target"]) == ("refused", shared.target)
    assert worker_id not in shared.master.workers()
    with shared.wire(shared.joined(worker_id)) as wire:
        wire.stream().register(worker_id)


@pytest.mark.parametrize("reason", ["client_left", "client_refused"])
def test_who_goes_by_itself_was_not_refused(shared: TlsMaster, tmp_path: Path, reason: str) -> None:
    before = failed_handshakes(shared, reason)
    with socket.create_connection((LOCALHOST, shared.master.grpc_port)) as plain:
        if reason == "client_refused":
            stranger = new_authority(tmp_path).certificate_pem.decode()
            context = ssl.create_default_context(cadata=stranger)
            context.maximum_version = ssl.TLSVersion.TLSv1_2  # in which it can be told from garbage
            with pytest.raises(ssl.SSLCertVerificationError):
                context.wrap_socket(plain, server_hostname="localhost")
    eventually(lambda: failed_handshakes(shared, reason) > before)
    assert not [one for one in shared.audited("handshake") if one["detail"].startswith(reason)]


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
        sys.executable, "-m", "master", "--http-port", str(free_port()), "--grpc-port", port,
        "--join-port", f"{LOCALHOST}:{free_port()}", FLEETPULSE_DATA_DIR=str(tls.data_dir),
    )  # fmt: skip
    assert ended.code != 0
    assert port in ended.err


def test_a_worker_without_a_certificate_says_what_it_lacks(shared: TlsMaster) -> None:
    worker = shared.worker("plain-1")
    eventually(lambda: "does the master want a certificate" in worker.err)
    assert "plain-1" not in shared.master.workers()
    worker.send(signal.SIGTERM)
    worker.wait()


def test_a_worker_with_a_certificate_goes_nowhere_without_tls(
    shared: TlsMaster, processes: Processes, master: Master
) -> None:
    write_bundle(shared.folder("secured-1") / "tls.pem", shared.joined("secured-1"))
    worker = shared.worker("secured-1", None, "--master", master.target)
    eventually(lambda: "the master does not speak TLS" in worker.err)
    assert master.workers() == {}
    assert "ssl_transport_security" not in worker.err
    worker.send(signal.SIGTERM)
    worker.wait()


def test_a_certificate_that_was_not_renewed_shows_while_its_worker_is_connected(shared: TlsMaster) -> None:
    def used(holder: str) -> float:
        return shared.master.samples("fleetpulse_certificate_life_used_ratio").get((holder,), 0.0)

    assert 0.0 < used("master") < 0.01
    with shared.wire(shared.joined(worker_id := next(ids), lifetime=3600.0, age=3300.0)) as wire:
        registered(wire, worker_id)
        eventually(lambda: 0.9 < used("worker") < 1.0)
    eventually(lambda: used("worker") <= 0.75)


def test_nobody_registers_as_another_worker(shared: TlsMaster) -> None:
    own, other = shared.joined(next(ids)), next(ids)
    before = shared.refused("worker_sessions_refused", "certificate_mismatch")
    answer = refusal(shared.wire(own), other)
    assert answer == Refusal(grpc.StatusCode.PERMISSION_DENIED, f"the certificate is for worker {own.worker_id} only")
    assert shared.refused("worker_sessions_refused", "certificate_mismatch") == before + 1
    (entry,) = eventually(lambda: [one for one in shared.audited("register") if one["target"] == other])
    assert (entry["outcome"], entry["actor"]) == ("refused", f"worker:{own.worker_id}")
    assert other not in shared.master.workers()


def test_nobody_beats_for_another_worker(shared: TlsMaster) -> None:
    own, other = shared.joined(next(ids)), next(ids)
    before = shared.refused("heartbeats_rejected", "certificate_mismatch")
    with shared.wire(own) as wire:
        answer = wire.send_heartbeat(a_heartbeat(other))
        assert isinstance(answer, Refusal)
        assert answer.code is grpc.StatusCode.PERMISSION_DENIED
        assert isinstance(wire.send_heartbeat(a_heartbeat(own.worker_id)), pb.HeartbeatAck)
        stream = wire.stream()
        stream.register(own.worker_id)
        stream.beat(a_heartbeat(other))
        assert stream.refusal().code is grpc.StatusCode.INVALID_ARGUMENT
    assert shared.refused("heartbeats_rejected", "certificate_mismatch") == before + 1
    eventually(lambda: own.worker_id in shared.master.workers())
    assert other not in shared.master.workers()


def test_nobody_renews_for_another_worker(shared: TlsMaster) -> None:
    own = shared.joined(next(ids))
    request = pb.RenewRequest(csr=signing_request(new_key(), "rack-1"))
    with shared.wire(own) as wire, pytest.raises(grpc.RpcError) as caught:
        pb_grpc.FleetStub(wire.channel).Renew(request, timeout=PATIENCE_SECONDS)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert {one.worker_id for one in shared.authority.issued()}.isdisjoint({"rack-1"})


def told_of(tls: TlsMaster, worker_id: str) -> list[tuple[str, str, str]]:
    """What the audit trail says that the worker tried with attempts: action, target, why not."""
    entries = tls.master.json(f"/api/audit?actor=worker:{worker_id}&outcome=refused")
    assert {(one["door"], one["status"], one["client"]) for one in entries} <= {("rpc", "PERMISSION_DENIED", LOCALHOST)}
    return [(one["action"], one["target"], one["detail"]) for one in entries]


def test_a_report_about_somebody_elses_attempt_changes_nothing(shared: TlsMaster) -> None:
    own, other = shared.joined(next(ids)), shared.joined(next(ids))
    with shared.wire(own) as wire, shared.wire(other) as other_wire:
        stream = registered(wire, own.worker_id)
        eventually(lambda: shared.is_active(own.worker_id))
        body = {"docker_image": "busybox", "memory_required": 32, "cpu_required": 0.1}
        task_id = shared.master.session.post(f"{shared.master.url}/api/tasks", json=body, timeout=10).json()["task_id"]
        start = next(stream._call).start_task
        assert start.id.task_id == task_id
        before = shared.master.sample("fleetpulse_task_reports_stale_total")
        foreign = shared.master.sample("fleetpulse_task_reports_foreign_total")
        intruder = registered(other_wire, other.worker_id)
        update = pb.TaskUpdate(id=start.id, update_number=1, phase=pb.ATTEMPT_PHASE_COMPLETED, exit_code=0)
        intruder.send(pb.WorkerMessage(task_update=update))
        intruder.send(pb.WorkerMessage(log_chunk=pb.LogChunk(id=start.id, offset_bytes=0, data=b"forged")))
        assert [next(intruder._call).ack.stale for _ in range(2)] == [True, True]
        task = shared.master.json(f"/api/tasks/{task_id}")
        assert (task["status"], task["worker_id"]) == ("pending", own.worker_id)
        assert shared.master.json(f"/api/tasks/{task_id}/logs")["logs"] == ""
        assert shared.master.sample("fleetpulse_task_reports_stale_total") == before + 2
        made_up = pb.TaskUpdate(id=pb.AttemptId(task_id="task-none", attempt=1), update_number=2, phase=update.phase)
        intruder.send(pb.WorkerMessage(task_update=made_up))
        assert next(intruder._call).ack.stale
        eventually(lambda: shared.master.sample("fleetpulse_task_reports_foreign_total") == foreign + 3)
        eventually(lambda: len(told_of(shared, other.worker_id)) == 3)
        assert sorted(told_of(shared, other.worker_id)) == sorted(
            [
                ("report", f"{task_id}/1", f"it is of worker {own.worker_id}"),
                ("log", f"{task_id}/1", f"it is of worker {own.worker_id}"),
                ("report", "task-none/1", "there is no such attempt"),
            ]
        )
        stream.send(pb.WorkerMessage(task_update=update))
        assert not next(stream._call).ack.stale
        eventually(lambda: shared.master.json(f"/api/tasks/{task_id}")["status"] == "completed")
        # Said again when all is over, it is the worker's own past, and nobody's business.
        stream.send(pb.WorkerMessage(task_update=update))
        assert next(stream._call).ack.stale
        eventually(lambda: shared.master.sample("fleetpulse_task_reports_stale_total") == before + 4)
        intruder.send(pb.WorkerMessage(task_update=made_up))
        eventually(lambda: shared.master.sample("fleetpulse_task_reports_foreign_total") == foreign + 4)
        assert told_of(shared, own.worker_id) == []


# Who is let go


def test_a_revoked_worker_is_let_go_and_stays_out(tls: TlsMaster) -> None:
    worker, bystander = tls.worker("rack-7", tls.token()), tls.worker("rack-8", tls.token())
    eventually(lambda: tls.is_active("rack-7") and tls.is_active("rack-8"))
    serial = tls.authority.issued()[0].serial
    assert tls.ca("revoke", "rack-7") == f"revoked {serial} of rack-7\n"
    eventually(lambda: "the certificate of worker rack-7 was revoked" in worker.err)
    assert tls.refused("worker_sessions_refused", "certificate_revoked") >= 1
    refused = refusal(tls.wire(tls.bundle("rack-7")), "rack-7")
    assert refused.code is grpc.StatusCode.UNAUTHENTICATED
    with tls.wire(tls.bundle("rack-7")) as wire:
        answer = wire.send_heartbeat(a_heartbeat("rack-7"))
        assert isinstance(answer, Refusal)
        assert answer.code is grpc.StatusCode.UNAUTHENTICATED
    eventually(lambda: not tls.is_active("rack-7"))
    assert tls.is_active("rack-8")
    assert bystander.err.count("registered at") == 1
    assert " revoked " in tls.ca("list").splitlines()[1]

    worker.send(signal.SIGTERM)
    worker.wait()
    tls.worker("rack-7", tls.token("rack-7"))
    eventually(lambda: tls.is_active("rack-7"))


def test_a_stream_ends_with_its_certificate(tls: TlsMaster) -> None:
    with tls.wire(tls.joined("rack-7", lifetime=4.0)) as wire:
        stream = registered(wire, "rack-7")
        assert stream.refusal() == Refusal(
            grpc.StatusCode.UNAUTHENTICATED, "the certificate of worker rack-7 has expired"
        )
    assert tls.refused("worker_sessions_refused", "certificate_expired") == 1


def shown_serial(port: int) -> str:
    """Of the certificate that a master shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((LOCALHOST, port), timeout=10) as plain, context.wrap_socket(plain) as secured:
        der = secured.getpeercert(binary_form=True)
    assert der is not None
    return ssl.DER_cert_to_PEM_cert(der)


def test_certificates_are_renewed_without_a_restart(processes: Processes) -> None:
    tls = TlsMaster(processes, "--certificate-lifetime", "8s")
    worker = tls.worker("rack-7", tls.token())
    eventually(lambda: tls.is_active("rack-7"))
    first, master_first = tls.bundle("rack-7"), shown_serial(tls.join_port)
    master_expiry = tls.master.sample("fleetpulse_server_certificate_expiry_timestamp_seconds")
    # The second one is asked for with the first, when that which it joined with has expired.
    eventually(lambda: tls.master.sample("fleetpulse_certificates_issued_total", "renew") >= 2, 40.0)
    eventually(lambda: tls.bundle("rack-7").not_after >= first.not_after + 8.0)
    assert tls.bundle("rack-7").key_pem != first.key_pem
    assert shown_serial(tls.join_port) != master_first
    assert tls.master.sample("fleetpulse_server_certificate_expiry_timestamp_seconds") > master_expiry
    eventually(lambda: worker.err.count("registered at") >= 3)
    assert "no stream to the master" not in worker.err
    assert worker.is_running
    assert tls.is_active("rack-7")
    tls.close()


def test_a_master_that_was_started_again_keeps_all(tls: TlsMaster) -> None:
    token = tls.token()
    worker = tls.worker("rack-7", token)
    eventually(lambda: tls.is_active("rack-7"))
    revoked = tls.joined("rack-9")
    tls.ca("revoke", "rack-9")
    tls.restart()
    eventually(lambda: tls.is_active("rack-7"))
    assert worker.is_running
    assert refusal(tls.wire(revoked), "rack-9").code is grpc.StatusCode.UNAUTHENTICATED
    late = tls.worker("rack-8", token)
    assert late.wait() == 1
    assert "has been used" in late.err


# Fleets and one machine


def test_a_simulated_fleet_joins_with_one_token(tls: TlsMaster, processes: Processes) -> None:
    token = tls.token("sim-*", uses=20)
    flags = ("--join-address", f"{LOCALHOST}:{tls.join_port}", "--data-dir", str(processes.folder / "sim"))
    (processes.folder / "token").write_text(token)
    for _ in range(2):
        fleet = processes.simulate(tls.target, 20, *flags, "--join-file", str(processes.folder / "token"))
        eventually(lambda: tls.master.active() == 20)
        fleet.send(signal.SIGTERM)
        assert fleet.wait() == 0
        eventually(lambda: tls.master.workers() == {})
    assert len(tls.authority.issued()) == 20


def test_up_lets_its_own_worker_join(processes: Processes) -> None:
    assert processes.run(FLEETPULSE, "ca", "init").code == 0
    http_port, grpc_port = free_port(), free_port()
    master = Door(http_port)
    flags = ("--http-port", str(http_port), "--grpc-port", str(grpc_port), "--join-port", str(free_port()))
    for _ in range(2):
        up = processes.start("up", FLEETPULSE, "up", *flags, "--worker-id", "here")
        eventually(lambda: master.workers() == {"here": True}, READY_SECONDS)
        assert "fpj1_" not in " ".join(" ".join(child.cmdline()) for child in up.children()) + up.out + up.err
        up.send(signal.SIGTERM)
        assert up.wait() == 0
    master.close()


# The command line


def test_the_commands_of_a_ca(processes: Processes) -> None:
    def run(*words: str) -> str:
        ended = processes.run(FLEETPULSE, "ca", *words)
        assert ended.code == 0, ended.err
        return ended.out

    made = json.loads(run("init", "--json"))
    assert json.loads(run("init", "--if-missing", "--json")) == made
    assert "already" in processes.run(FLEETPULSE, "ca", "init").the_error()
    token = json.loads(run("join-token", "--worker-id", "rack-7", "--json"))
    assert (token["worker_id"], token["uses"]) == ("rack-7", 1)
    assert run("join-token").startswith("fpj1_")
    data_dir = processes.folder / "data"
    Authority(data_dir).join(token["token"], signing_request(new_key(), "rack-7"))
    (listed,) = json.loads(run("list", "--json"))
    assert listed.keys() == {"worker_id", "serial", "issued_at", "expires_at", "revoked_at", "revoked"}
    assert (listed["worker_id"], listed["revoked"]) == ("rack-7", False)
    assert run("list").splitlines()[0].split() == ["WORKER", "STATE", "EXPIRES", "SERIAL"]
    (revoked,) = json.loads(run("revoke", listed["serial"], "--json"))
    assert (revoked["serial"], revoked["revoked"]) == (listed["serial"], True)
    assert "nothing was given to 'rack-8'" in processes.run(FLEETPULSE, "ca", "revoke", "rack-8").the_error()
    assert "expected a duration" in processes.run(FLEETPULSE, "ca", "join-token", "--lifetime", "x").the_error()


def test_without_a_ca_its_commands_say_so(processes: Processes) -> None:
    for words in (("join-token",), ("list",), ("revoke", "rack-7")):
        assert "fleetpulse ca init" in processes.run(FLEETPULSE, "ca", *words).the_error()
