"""master.rpc.unary"""

import grpc
import pytest

from fleetpulse.master.audit.entry import AuditEntry
from fleetpulse.master.config import LeaseConfig
from fleetpulse.master.rpc.stream import RpcStatus
from fleetpulse.master.rpc.unary import answer_heartbeat
from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.master.fleet import Fleet, heartbeat, running_fleet, settle


def answer(fleet: Fleet, data: bytes) -> bytes | RpcStatus:
    result = answer_heartbeat(fleet.manager, fleet.instruments, data)
    settle()
    return result


def test_an_unknown_worker_is_registered_and_told_the_terms() -> None:
    with running_fleet(LeaseConfig(heartbeat_interval_seconds=2.5, inactivity_timeout_seconds=12.0)) as fleet:
        data = answer(fleet, heartbeat(load=pb.Load(load1=1.0)).SerializeToString())
        assert isinstance(data, bytes)
        assert pb.HeartbeatAck.FromString(data) == pb.HeartbeatAck(
            heartbeat_interval_seconds=2.5, inactivity_timeout_seconds=12.0
        )
        assert fleet.manager.get_worker_telemetry("rack-7").reading.load.load1 == 1.0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff", "invalid_message"),
        (bytes(10 * 1024 * 1024), "invalid_message"),
        (heartbeat("").SerializeToString(), "invalid_message"),
        (heartbeat("../a").SerializeToString(), "invalid_message"),
        (heartbeat(cpu=pb.Cpu(usage_percent=float("inf"))).SerializeToString(), "invalid_reading"),
    ],
)
def test_what_breaks_a_rule_is_refused_and_counted(fleet: Fleet, data: bytes, reason: str) -> None:
    result = answer(fleet, data)
    assert isinstance(result, RpcStatus)
    assert result.code is grpc.StatusCode.INVALID_ARGUMENT
    assert result.details
    assert fleet.metric("heartbeats_rejected_total", reason=reason) == 1
    assert fleet.manager.get_all_worker_telemetry() == {}


def test_a_worker_that_has_a_stream_is_not_to_be_spoken_for(fleet: Fleet) -> None:
    fleet.beat(incarnation_id="first")
    result = answer(fleet, heartbeat().SerializeToString())
    assert isinstance(result, RpcStatus)
    assert result.code is grpc.StatusCode.ALREADY_EXISTS


def test_a_repetition_is_answered_like_the_first(fleet: Fleet) -> None:
    data = heartbeat(incarnation_id="first", sequence_number=1).SerializeToString()
    assert answer(fleet, data) == answer(fleet, data)
    assert fleet.metric("heartbeats_received_total") == 1


def test_a_worker_that_is_new_is_recorded_and_so_is_a_refusal_but_no_heartbeat(fleet: Fleet) -> None:
    entries: list[AuditEntry] = []
    for worker_id in ("rack-7", "rack-7", "rack-7", "../a"):
        data = heartbeat(worker_id).SerializeToString()
        answer_heartbeat(fleet.manager, fleet.instruments, data, peer="ipv4:192.0.2.7:40000", record=entries.append)
        settle()
    came, refused = entries
    assert (came.action, came.actor, came.client, came.outcome) == ("register", "worker:rack-7", "192.0.2.7", "ok")
    assert (refused.action, refused.actor, refused.target) == ("send_heartbeat", "anonymous", "../a")
    assert (refused.outcome, refused.status) == ("refused", "INVALID_ARGUMENT")
    assert refused.detail.startswith("invalid_message: ")
