"""Permissions of a master with a CA: every RPC, called with every kind of certificate."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest

from fleetpulse.master.pki.authority import Authority
from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto import fleetpulse_pb2_grpc as pb_grpc
from fleetpulse.worker.credentials.bundle import Bundle, new_key, signing_request
from tests.certificates import channel_credentials, issued_bundle, new_authority
from tests.e2e.grpc_client import TIMEOUT_SECONDS, GrpcClient, Refusal, a_heartbeat
from tests.e2e.masters import FAST_LEASE_FLAGS, Master, started_master
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST, free_port

pytestmark = pytest.mark.e2e

OK, DENIED, UNAVAILABLE, UNAUTHENTICATED = "OK", "PERMISSION_DENIED", "UNAVAILABLE", "UNAUTHENTICATED"
VICTIM = "victim"

EXPECTED = {
    # certificate:    none       wrong      expired    revoked/used  its own  another worker's
    "Fleet.Connect": (UNAVAILABLE, UNAVAILABLE, UNAVAILABLE, UNAUTHENTICATED, OK, DENIED),
    "Fleet.SendHeartbeat": (UNAVAILABLE, UNAVAILABLE, UNAVAILABLE, UNAUTHENTICATED, OK, DENIED),
    "Fleet.Renew": (UNAVAILABLE, UNAVAILABLE, UNAVAILABLE, UNAUTHENTICATED, OK, DENIED),
    # For this RPC: the join token.
    "Enrollment.Join": (DENIED, DENIED, DENIED, DENIED, OK, DENIED),
}
HOLDERS = ("none", "wrong", "expired", "revoked", "worker", "other worker")


class PkiSetup(NamedTuple):
    """A master with a CA, and another CA that it does not know."""

    master: Master
    authority: Authority
    data_dir: Path
    elsewhere: Path
    join_port: int


@pytest.fixture(scope="module")
def pki(shared_processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PkiSetup]:
    data_dir, elsewhere = shared_processes.folder / "data", tmp_path_factory.mktemp("elsewhere")
    authority = new_authority(data_dir)
    new_authority(elsewhere)
    join_port = free_port()
    master = started_master(shared_processes, *FAST_LEASE_FLAGS, "--join-port", str(join_port))
    yield PkiSetup(master, authority, data_dir, elsewhere, join_port)
    master.close()
    master.assert_no_errors()


def credentials(pki: PkiSetup, holder: str) -> tuple[grpc.ChannelCredentials, str]:
    """The channel credentials of a holder, and the worker id in its requests."""
    worker_id = holder.replace(" ", "-")
    own = issued_bundle(pki.data_dir, worker_id)
    if holder == "none":
        return grpc.ssl_channel_credentials(own.ca_pem), worker_id
    if holder == "wrong":
        return channel_credentials(issued_bundle(pki.elsewhere, worker_id), own), worker_id
    if holder == "expired":
        return channel_credentials(issued_bundle(pki.data_dir, worker_id, lifetime=60.0, age=120.0)), worker_id
    if holder == "revoked":
        pki.authority.revoke(worker_id)
        eventually(lambda: is_refused(pki, own))
    return channel_credentials(own), VICTIM if holder == "other worker" else worker_id


def is_refused(pki: PkiSetup, bundle: Bundle) -> bool:
    """Whether the master refuses the revoked certificate."""
    with GrpcClient(pki.master.target, channel_credentials(bundle)) as client:
        return send_heartbeat(client, bundle.worker_id) == UNAUTHENTICATED


def connect(client: GrpcClient, worker_id: str) -> str:
    stream = client.stream()
    try:
        stream.register(worker_id)
    except grpc.RpcError:
        return stream.refusal().code.name
    return OK


def send_heartbeat(client: GrpcClient, worker_id: str) -> str:
    answer = client.send_heartbeat(a_heartbeat(worker_id))
    return answer.code.name if isinstance(answer, Refusal) else OK


def renew(client: GrpcClient, worker_id: str) -> str:
    request = pb.RenewRequest(csr=signing_request(new_key(), worker_id))
    return ended(lambda: pb_grpc.FleetStub(client.channel).Renew(request, timeout=TIMEOUT_SECONDS))


def join(pki: PkiSetup, holder: str) -> str:
    worker_id = f"joins-{holder}".replace(" ", "-")
    tokens = {
        "none": "",
        "wrong": new_authority_token(pki.elsewhere),
        "expired": pki.authority.new_join_token(0.001),
        "worker": pki.authority.new_join_token(60.0, worker_id),
        "other worker": pki.authority.new_join_token(60.0, VICTIM),
        "revoked": pki.authority.new_join_token(60.0),
    }
    if holder == "revoked":
        pki.authority.join(tokens[holder], signing_request(new_key(), "joined-before"))
    request = pb.JoinRequest(token=tokens[holder], csr=signing_request(new_key(), worker_id))
    root = grpc.ssl_channel_credentials(pki.authority.certificate_pem)
    with grpc.secure_channel(f"{LOCALHOST}:{pki.join_port}", root) as channel:
        return ended(lambda: pb_grpc.EnrollmentStub(channel).Join(request, timeout=TIMEOUT_SECONDS))


def new_authority_token(data_dir: Path) -> str:
    return Authority(data_dir).new_join_token(60.0)


def ended(call: Callable[[], object]) -> str:
    try:
        call()
    except grpc.RpcError as error:
        return str(error.code().name)
    return OK


FLEET_CALLS = {"Fleet.Connect": connect, "Fleet.SendHeartbeat": send_heartbeat, "Fleet.Renew": renew}


def test_every_rpc_has_a_row() -> None:
    services = pb.DESCRIPTOR.services_by_name.values()
    assert {f"{service.name}.{method.name}" for service in services for method in service.methods} == EXPECTED.keys()
    assert {*FLEET_CALLS, "Enrollment.Join"} == EXPECTED.keys()


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("rpc", EXPECTED)
def test_permissions_of_every_rpc(pki: PkiSetup, rpc: str, holder: str) -> None:
    if rpc == "Enrollment.Join":
        answer = join(pki, holder)
    else:
        channel, worker_id = credentials(pki, holder)
        with GrpcClient(pki.master.target, channel) as client:
            answer = FLEET_CALLS[rpc](client, worker_id)
    assert answer == EXPECTED[rpc][HOLDERS.index(holder)]
    assert VICTIM not in pki.master.workers()
    assert VICTIM not in {one.worker_id for one in pki.authority.issued()}


def test_refused_calls_are_in_the_audit_trail(pki: PkiSetup) -> None:
    entries = pki.master.json("/api/audit?outcome=refused&limit=1000")
    assert {"join", "register", "send_heartbeat", "renew"} <= {entry["action"] for entry in entries}
