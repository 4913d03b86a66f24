"""Mutual TLS with real processes: identities, revocation and renewal."""

import json
import shutil
import signal
import socket
import ssl

import grpc
import pytest

from fleetpulse.master.pki.authority import Authority
from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto import fleetpulse_pb2_grpc as pb_grpc
from fleetpulse.worker.credentials.bundle import new_key, signing_request
from tests.certificates import issued_bundle
from tests.e2e.grpc_client import TIMEOUT_SECONDS, Refusal, a_heartbeat
from tests.e2e.masters import READY_SECONDS, MasterClient
from tests.e2e.processes import FLEETPULSE, Processes
from tests.e2e.tls import TlsMaster, ids, refusal, registered
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST, free_port

pytestmark = pytest.mark.e2e


def test_metrics_show_a_certificate_that_was_not_renewed(shared_tls: TlsMaster) -> None:
    def used(holder: str) -> float:
        return shared_tls.master.samples("fleetpulse_certificate_life_used_ratio").get((holder,), 0.0)

    assert 0.0 < used("master") < 0.01
    with shared_tls.connect(shared_tls.issued_bundle(worker_id := next(ids), lifetime=3600.0, age=3300.0)) as client:
        registered(client, worker_id)
        eventually(lambda: 0.9 < used("worker") < 1.0)
    eventually(lambda: used("worker") <= 0.75)


def test_registering_as_another_worker_is_refused(shared_tls: TlsMaster) -> None:
    own, other = shared_tls.issued_bundle(next(ids)), next(ids)
    before = shared_tls.refused("worker_sessions_refused", "certificate_mismatch")
    answer = refusal(shared_tls.connect(own), other)
    assert answer == Refusal(grpc.StatusCode.PERMISSION_DENIED, f"the certificate is for worker {own.worker_id} only")
    assert shared_tls.refused("worker_sessions_refused", "certificate_mismatch") == before + 1
    (entry,) = eventually(lambda: [one for one in shared_tls.audited("register") if one["target"] == other])
    assert (entry["outcome"], entry["actor"]) == ("refused", f"worker:{own.worker_id}")
    assert other not in shared_tls.master.workers()


def test_heartbeat_for_another_worker_is_refused(shared_tls: TlsMaster) -> None:
    own, other = shared_tls.issued_bundle(next(ids)), next(ids)
    before = shared_tls.refused("heartbeats_rejected", "certificate_mismatch")
    with shared_tls.connect(own) as client:
        answer = client.send_heartbeat(a_heartbeat(other))
        assert isinstance(answer, Refusal)
        assert answer.code is grpc.StatusCode.PERMISSION_DENIED
        assert isinstance(client.send_heartbeat(a_heartbeat(own.worker_id)), pb.HeartbeatAck)
        stream = client.stream()
        stream.register(own.worker_id)
        stream.beat(a_heartbeat(other))
        assert stream.refusal().code is grpc.StatusCode.INVALID_ARGUMENT
    assert shared_tls.refused("heartbeats_rejected", "certificate_mismatch") == before + 1
    eventually(lambda: own.worker_id in shared_tls.master.workers())
    assert other not in shared_tls.master.workers()


def test_renewing_for_another_worker_is_refused(shared_tls: TlsMaster) -> None:
    own = shared_tls.issued_bundle(next(ids))
    request = pb.RenewRequest(csr=signing_request(new_key(), "rack-1"))
    with shared_tls.connect(own) as client, pytest.raises(grpc.RpcError) as caught:
        pb_grpc.FleetStub(client.channel).Renew(request, timeout=TIMEOUT_SECONDS)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert {one.worker_id for one in shared_tls.authority.issued()}.isdisjoint({"rack-1"})


def refused_reports(tls: TlsMaster, worker_id: str) -> list[tuple[str, str, str]]:
    """The worker's refused reports in the audit trail: action, target and detail."""
    entries = tls.master.json(f"/api/audit?actor=worker:{worker_id}&outcome=refused")
    assert {(one["source"], one["status"], one["client"]) for one in entries} <= {
        ("grpc", "PERMISSION_DENIED", LOCALHOST)
    }
    return [(one["action"], one["target"], one["detail"]) for one in entries]


def test_report_about_another_workers_attempt_changes_nothing(shared_tls: TlsMaster) -> None:
    own, other = shared_tls.issued_bundle(next(ids)), shared_tls.issued_bundle(next(ids))
    with shared_tls.connect(own) as client, shared_tls.connect(other) as other_client:
        stream = registered(client, own.worker_id)
        eventually(lambda: shared_tls.is_active(own.worker_id))
        body = {"docker_image": "busybox", "memory_required": 32, "cpu_required": 0.1}
        answer = shared_tls.master.session.post(f"{shared_tls.master.url}/api/tasks", json=body, timeout=10)
        task_id = answer.json()["task_id"]
        start = next(stream._call).start_task
        assert start.id.task_id == task_id
        before = shared_tls.master.sample("fleetpulse_task_reports_stale_total")
        foreign = shared_tls.master.sample("fleetpulse_task_reports_foreign_total")
        intruder = registered(other_client, other.worker_id, start.id)
        update = pb.TaskUpdate(id=start.id, update_number=1, phase=pb.ATTEMPT_PHASE_COMPLETED, exit_code=0)
        intruder.send(pb.WorkerMessage(task_update=update))
        intruder.send(pb.WorkerMessage(log_chunk=pb.LogChunk(id=start.id, offset_bytes=0, data=b"forged")))
        assert [next(intruder._call).ack.stale for _ in range(2)] == [True, True]
        task = shared_tls.master.json(f"/api/tasks/{task_id}")
        assert (task["status"], task["worker_id"]) == ("pending", own.worker_id)
        assert shared_tls.master.json(f"/api/tasks/{task_id}/logs")["logs"] == ""
        assert shared_tls.master.sample("fleetpulse_task_reports_stale_total") == before + 2
        made_up = pb.TaskUpdate(id=pb.AttemptId(task_id="task-none", attempt=1), update_number=2, phase=update.phase)
        intruder.send(pb.WorkerMessage(task_update=made_up))
        assert next(intruder._call).ack.stale
        eventually(lambda: shared_tls.master.sample("fleetpulse_task_reports_foreign_total") == foreign + 4)
        eventually(lambda: len(refused_reports(shared_tls, other.worker_id)) == 4)
        assert sorted(refused_reports(shared_tls, other.worker_id)) == sorted(
            [
                ("hold", f"{task_id}/1", f"it is of worker {own.worker_id}"),
                ("report", f"{task_id}/1", f"it is of worker {own.worker_id}"),
                ("log", f"{task_id}/1", f"it is of worker {own.worker_id}"),
                ("report", "task-none/1", "there is no such attempt"),
            ]
        )
        stream.send(pb.WorkerMessage(task_update=update))
        assert not next(stream._call).ack.stale
        eventually(lambda: shared_tls.master.json(f"/api/tasks/{task_id}")["status"] == "completed")
        # A repeated report of the worker's own ended attempt is stale, but not foreign.
        stream.send(pb.WorkerMessage(task_update=update))
        assert next(stream._call).ack.stale
        eventually(lambda: shared_tls.master.sample("fleetpulse_task_reports_stale_total") == before + 4)
        intruder.send(pb.WorkerMessage(task_update=made_up))
        eventually(lambda: shared_tls.master.sample("fleetpulse_task_reports_foreign_total") == foreign + 5)
        assert refused_reports(shared_tls, own.worker_id) == []


# Revocation and expiry


def test_revoked_worker_is_disconnected_and_refused(tls: TlsMaster) -> None:
    worker, healthy_worker = tls.worker("rack-7", tls.token()), tls.worker("rack-8", tls.token())
    eventually(lambda: tls.is_active("rack-7") and tls.is_active("rack-8"))
    serial = tls.authority.issued()[0].serial
    assert tls.ca("revoke", "rack-7") == f"revoked {serial} of rack-7\n"
    eventually(lambda: "the certificate of worker rack-7 was revoked" in worker.err)
    assert tls.refused("worker_sessions_refused", "certificate_revoked") >= 1
    refused = refusal(tls.connect(tls.bundle("rack-7")), "rack-7")
    assert refused.code is grpc.StatusCode.UNAUTHENTICATED
    with tls.connect(tls.bundle("rack-7")) as client:
        answer = client.send_heartbeat(a_heartbeat("rack-7"))
        assert isinstance(answer, Refusal)
        assert answer.code is grpc.StatusCode.UNAUTHENTICATED
    eventually(lambda: not tls.is_active("rack-7"))
    assert tls.is_active("rack-8")
    assert healthy_worker.err.count("registered at") == 1
    assert " revoked " in tls.ca("list").splitlines()[1]

    worker.send(signal.SIGTERM)
    worker.wait()
    tls.worker("rack-7", tls.token("rack-7"))
    eventually(lambda: tls.is_active("rack-7"))


def test_certificate_that_another_copy_of_the_ca_issued_is_refused(tls: TlsMaster) -> None:
    """Who has copied the CA's key, say from a backup, cannot make workers that the master's own book does not have."""
    copy = tls.processes.folder / "copy"
    shutil.copytree(tls.data_dir / "ca", copy / "ca")
    forged = issued_bundle(copy, "rack-7")
    answer = refusal(tls.connect(forged), "rack-7")
    assert answer.details == "the certificate of worker rack-7 was not given by this CA"
    with tls.connect(forged) as client:
        assert isinstance(client.send_heartbeat(a_heartbeat("rack-7")), Refusal)
    registered_ones = tls.issued_bundle("rack-7")
    with tls.connect(registered_ones) as client:
        registered(client, "rack-7")


def test_stream_ends_when_its_certificate_expires(tls: TlsMaster) -> None:
    with tls.connect(tls.issued_bundle("rack-7", lifetime=4.0)) as client:
        stream = registered(client, "rack-7")
        assert stream.refusal() == Refusal(
            grpc.StatusCode.UNAUTHENTICATED, "the certificate of worker rack-7 has expired"
        )
    assert tls.refused("worker_sessions_refused", "certificate_expired") == 1


def shown_serial(port: int) -> str:
    """The serial number of the certificate that a master presents."""
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
    master_expiry = tls.master.sample("fleetpulse_certificate_expiry_timestamp_seconds", "master")
    # The worker requests the second certificate with the first, after its original one has expired.
    eventually(lambda: tls.master.sample("fleetpulse_certificates_issued_total", "renew") >= 2, 40.0)
    eventually(lambda: tls.bundle("rack-7").not_after >= first.not_after + 8.0)
    assert tls.bundle("rack-7").key_pem != first.key_pem
    assert shown_serial(tls.join_port) != master_first
    assert tls.master.sample("fleetpulse_certificate_expiry_timestamp_seconds", "master") > master_expiry
    eventually(lambda: worker.err.count("registered at") >= 3)
    assert "no stream to the master" not in worker.err
    assert worker.is_running
    assert tls.is_active("rack-7")
    tls.close()


def test_restarted_master_keeps_certificates_and_tokens(tls: TlsMaster) -> None:
    token = tls.token()
    worker = tls.worker("rack-7", token)
    eventually(lambda: tls.is_active("rack-7"))
    revoked = tls.issued_bundle("rack-9")
    tls.ca("revoke", "rack-9")
    tls.restart()
    eventually(lambda: tls.is_active("rack-7"))
    assert worker.is_running
    assert refusal(tls.connect(revoked), "rack-9").code is grpc.StatusCode.UNAUTHENTICATED
    late = tls.worker("rack-8", token)
    assert late.wait() == 1
    assert "has been used" in late.err


# Fleets and one machine


def test_simulated_fleet_joins_with_one_token(tls: TlsMaster, processes: Processes) -> None:
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


def test_up_joins_its_own_worker(processes: Processes) -> None:
    assert processes.run(FLEETPULSE, "ca", "init").code == 0
    http_port, grpc_port = free_port(), free_port()
    master = MasterClient(http_port)
    flags = ("--http-port", str(http_port), "--grpc-port", str(grpc_port), "--join-port", str(free_port()))
    for _ in range(2):
        up = processes.start("up", FLEETPULSE, "up", *flags, "--worker-id", "here")
        eventually(lambda: master.workers() == {"here": True}, READY_SECONDS)
        assert "fpj1_" not in " ".join(" ".join(child.cmdline()) for child in up.children()) + up.out + up.err
        up.send(signal.SIGTERM)
        assert up.wait() == 0
    master.close()


# The command line


def test_ca_commands(processes: Processes) -> None:
    def run(*words: str) -> str:
        ended = processes.run(FLEETPULSE, "ca", *words)
        assert ended.code == 0, ended.err
        return ended.out

    made = json.loads(run("init", "--json"))
    assert json.loads(run("init", "--if-missing", "--json")) == made
    assert "already" in processes.run(FLEETPULSE, "ca", "init").error_line()
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
    assert "nothing was given to 'rack-8'" in processes.run(FLEETPULSE, "ca", "revoke", "rack-8").error_line()
    assert "expected a duration" in processes.run(FLEETPULSE, "ca", "join-token", "--lifetime", "x").error_line()


def test_ca_commands_without_a_ca_fail(processes: Processes) -> None:
    for words in (("join-token",), ("list",), ("revoke", "rack-7")):
        assert "fleetpulse ca init" in processes.run(FLEETPULSE, "ca", *words).error_line()
