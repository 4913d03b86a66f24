"""One real stream that speaks for many workers."""

import grpc
import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.e2e.grpc_client import GrpcClient, a_heartbeat, new_worker_id
from tests.e2e.masters import Master
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e


def test_agents_workers_live_and_leave_like_others(shared_master: Master) -> None:
    names = [new_worker_id() for _ in range(50)]
    with GrpcClient(shared_master.target) as client:
        stream = client.stream()
        bad = a_heartbeat(names[0], cpu=pb.Cpu(usage_percent=101.0))
        report = pb.Report(
            registrations=[pb.Register(worker_id=name, incarnation_id="one") for name in names],
            heartbeats=[*map(a_heartbeat, names), bad],
        )
        answer = stream.report(report)
        assert answer.accepted == 100
        assert [(one.worker_id, one.code) for one in answer.refused] == [(names[0], "INVALID_ARGUMENT")]
        assert [shared_master.workers()[name] for name in names] == [True] * 50
        assert shared_master.sample("fleetpulse_worker_up", names[49]) == 1.0
        stream.report(pb.Report(departures=[pb.Departure(worker_id=names[0])]))
        eventually(lambda: names[0] not in shared_master.workers())
        stream.cancel()
        # Nobody speaks for them: their leases end.
        eventually(lambda: [shared_master.workers()[name] for name in names[1:]] == [False] * 49)


def test_agent_that_reports_too_much_at_once_is_ended(shared_master: Master) -> None:
    with GrpcClient(shared_master.target) as client:
        stream = client.stream()
        heartbeats = [pb.Heartbeat(worker_id=f"much-{number}") for number in range(257)]
        stream.send(pb.WorkerMessage(report=pb.Report(heartbeats=heartbeats)))
        assert stream.refusal().code is grpc.StatusCode.INVALID_ARGUMENT
