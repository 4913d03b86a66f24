"""master.rpc.reports: one stream that speaks for many workers."""

import math
from typing import Any

import grpc
import pytest

from fleetpulse.master.audit.entries import AuditEntry, AuditOutcome
from fleetpulse.master.pki.admission import Admission, WorkerCertificate
from fleetpulse.master.rpc.session import SessionTable
from fleetpulse.master.telemetry.leases import Receipts
from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import MAX_REPORT_ENTRIES
from tests.master.fleet import Fleet
from tests.master.rpc.test_session import FakeAttemptReports, FakeWorker

NOW = 1_700_000_000.0


class FakeAgent(FakeWorker):
    """An agent's session, and the agent's end of its stream."""

    def report(self, **fields: Any) -> pb.ReportAnswer:
        """Sends a report and returns the answer to it."""
        answered = len(self.stream.sent)
        self.send(pb.WorkerMessage(report=pb.Report(**fields)))
        assert len(self.stream.sent) == answered + 1, self.stream.endings
        return self.stream.sent[-1].report_answer

    def carry(self, *worker_ids: str, incarnation_id: str = "first") -> pb.ReportAnswer:
        return self.report(
            registrations=[pb.Register(worker_id=one, incarnation_id=incarnation_id) for one in worker_ids]
        )


def beat(worker_id: str, incarnation_id: str = "first", load1: float = 1.0, **fields: Any) -> pb.Heartbeat:
    return pb.Heartbeat(worker_id=worker_id, incarnation_id=incarnation_id, load=pb.Load(load1=load1), **fields)


def refusals(answer: pb.ReportAnswer) -> dict[str, str]:
    return {refusal.worker_id: refusal.code for refusal in answer.refused}


@pytest.fixture
def entries() -> list[AuditEntry]:
    return []


@pytest.fixture
def table(fleet: Fleet, entries: list[AuditEntry]) -> SessionTable:
    return SessionTable(fleet.manager, FakeAttemptReports(), fleet.instruments, record=entries.append)


@pytest.fixture
def agent(table: SessionTable) -> FakeAgent:
    return FakeAgent(table)


def test_agent_registers_many_and_beats_for_them(fleet: Fleet, agent: FakeAgent) -> None:
    names = [f"rack-{number}" for number in range(100)]
    answer = agent.carry(*names)
    lease = fleet.manager.lease_config
    assert answer.accepted == 100
    assert answer.heartbeat_interval_seconds == lease.heartbeat_interval_seconds
    assert answer.inactivity_timeout_seconds == lease.inactivity_timeout_seconds
    assert agent.report(heartbeats=[beat(name, load1=7.0) for name in names]).accepted == 100
    rows = fleet.manager.get_all_worker_telemetry()
    assert list(rows) == names
    assert {row.reading.load.load1 for row in rows.values()} == {7.0}
    assert fleet.metric("worker_sessions") == 100
    assert fleet.metric("heartbeats_received_total") == 100


def test_registration_and_first_heartbeat_come_in_one_report(fleet: Fleet, agent: FakeAgent) -> None:
    register = pb.Register(worker_id="rack-1", incarnation_id="first", hostname="one.example.com")
    assert agent.report(registrations=[register], heartbeats=[beat("rack-1")]).accepted == 2
    assert fleet.manager.get_worker_telemetry("rack-1").registration.hostname == "one.example.com"


BAD = {
    "not registered here": (beat("rack-9"), "NOT_FOUND", "not_carried"),
    "another incarnation": (beat("rack-2", "second"), "INVALID_ARGUMENT", "invalid_message"),
    "not a number": (beat("rack-2", load1=math.nan), "INVALID_ARGUMENT", "invalid_reading"),
    "an id against the rule": (beat("bad id\n"), "NOT_FOUND", "not_carried"),
    "task support": (
        beat("rack-2", task_support=pb.TaskSupport(available=True)),
        "INVALID_ARGUMENT",
        "invalid_message",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_heartbeat_is_refused_alone(fleet: Fleet, agent: FakeAgent, entries: list[AuditEntry], case: str) -> None:
    bad, code, reason = BAD[case]
    agent.carry("rack-1", "rack-2", "rack-3")
    answer = agent.report(heartbeats=[beat("rack-1"), bad, beat("rack-3")])
    assert answer.accepted == 2
    assert refusals(answer) == {bad.worker_id: code}
    assert agent.stream.code is None
    rows = fleet.manager.get_all_worker_telemetry()
    assert [row.counts.received for row in rows.values()] == [1, 0, 1]
    assert fleet.metric("report_entries_refused_total", reason=reason) == 1
    assert fleet.metric("heartbeats_rejected_total", reason=reason) == 1
    assert entries[-1].outcome is AuditOutcome.REFUSED


def test_bad_registration_is_refused_alone(fleet: Fleet, agent: FakeAgent) -> None:
    answer = agent.report(
        registrations=[
            pb.Register(worker_id="bad id"),
            pb.Register(worker_id="rack-1", task_support=pb.TaskSupport(available=True)),
            pb.Register(worker_id="rack-2", attempts_held=[pb.AttemptId(task_id="t", attempt=1)]),
            pb.Register(worker_id="rack-3"),
        ]
    )
    assert answer.accepted == 1
    assert set(refusals(answer).values()) == {"INVALID_ARGUMENT"}
    assert list(fleet.manager.get_all_worker_telemetry()) == ["rack-3"]


def test_id_that_another_incarnation_uses_is_refused_until_that_one_is_gone(table: SessionTable) -> None:
    own = FakeWorker(table, "rack-1").register().beat()
    agent = FakeAgent(table)
    assert refusals(agent.carry("rack-1", "rack-2", incarnation_id="second")) == {"rack-1": "ALREADY_EXISTS"}
    assert own.stream.code is None
    own.session.close()
    assert agent.carry("rack-1", incarnation_id="second").accepted == 1


def test_same_incarnation_takes_over_from_its_own_stream_and_back(fleet: Fleet, table: SessionTable) -> None:
    own = FakeWorker(table, "rack-1").register().beat()
    agent = FakeAgent(table)
    agent.carry("rack-1", "rack-2")
    assert own.stream.code is grpc.StatusCode.ABORTED
    own = FakeWorker(table, "rack-1").register().beat()
    answer = agent.report(heartbeats=[beat("rack-1"), beat("rack-2")])
    assert refusals(answer) == {"rack-1": "ABORTED"}
    assert own.stream.code is agent.stream.code is None
    agent.session.close()
    assert fleet.metric("worker_sessions") == 1


def test_agent_that_connects_anew_takes_over(fleet: Fleet, table: SessionTable) -> None:
    """Its old stream is half-open; when it ends at last, nothing changes."""
    old, new = FakeAgent(table), FakeAgent(table)
    old.carry("rack-1", "rack-2")
    assert new.carry("rack-1", "rack-2").accepted == 2
    old.session.close()
    assert new.report(heartbeats=[beat("rack-1"), beat("rack-2")]).accepted == 2
    assert new.carry("rack-1").accepted == 1
    assert fleet.metric("worker_sessions") == 2


def test_lost_stream_releases_every_worker(fleet: Fleet, agent: FakeAgent, table: SessionTable) -> None:
    agent.carry("rack-1", "rack-2")
    agent.report(heartbeats=[beat("rack-1"), beat("rack-2")])
    agent.session.close()
    assert fleet.is_active("rack-1")
    assert fleet.metric("worker_sessions") == 0
    assert FakeAgent(table).carry("rack-1", "rack-2", incarnation_id="second").accepted == 2


def test_departure_removes_one_and_goodbye_removes_all(fleet: Fleet, agent: FakeAgent, table: SessionTable) -> None:
    agent.carry("rack-1", "rack-2", "rack-3")
    departures = [pb.Departure(worker_id="rack-1", reason="switched off"), pb.Departure(worker_id="rack-9")]
    assert refusals(agent.report(departures=departures)) == {"rack-9": "NOT_FOUND"}
    assert list(fleet.manager.get_all_worker_telemetry()) == ["rack-2", "rack-3"]
    FakeWorker(table, "rack-3").register()
    agent.say_goodbye()
    assert list(fleet.manager.get_all_worker_telemetry()) == ["rack-3"]
    assert agent.stream.code is None


class TableReceipts(Receipts):
    """Of a grpc thread that waits for nothing."""

    def __init__(self, table: SessionTable) -> None:
        self._table = table

    def last_heard(self, worker_id: str, incarnation_id: str) -> float | None:
        return self._table.last_heard(worker_id, incarnation_id)


def test_silent_worker_of_a_talking_stream_is_inactive(fleet: Fleet, agent: FakeAgent, table: SessionTable) -> None:
    """That the agent is heard says nothing of a worker that it no longer reports."""
    fleet.manager.set_receipts(TableReceipts(table))
    agent.carry("rack-1", "rack-2")
    for _ in range(60):
        agent.now += 1.0
        fleet.pass_time(1.0)
        agent.report(heartbeats=[beat("rack-1")])
    assert fleet.is_active("rack-1")
    assert not fleet.is_active("rack-2")
    # A report that waits may speak for it.
    agent.report(heartbeats=[beat("rack-2")])
    agent.stream.put(b"", agent.now + 1.0)
    assert table.last_heard("rack-2", "first") == agent.now + 1.0


def test_forgotten_worker_returns_with_its_registration(fleet: Fleet, agent: FakeAgent) -> None:
    agent.report(registrations=[pb.Register(worker_id="rack-1", incarnation_id="first", hostname="one")])
    fleet.manager.unregister_worker("rack-1")
    assert agent.report(heartbeats=[beat("rack-1")]).accepted == 1
    assert fleet.manager.get_worker_telemetry("rack-1").registration.hostname == "one"


@pytest.mark.parametrize("fields", [{"register": pb.Register(worker_id="rack-1")}, {"heartbeat": beat("rack-1")}])
def test_agents_stream_carries_nothing_else(agent: FakeAgent, fields: dict[str, Any]) -> None:
    agent.carry("rack-1")
    agent.send(pb.WorkerMessage(**fields))
    assert agent.stream.code is grpc.StatusCode.INVALID_ARGUMENT


def test_workers_own_stream_carries_no_reports(table: SessionTable) -> None:
    worker = FakeWorker(table).register()
    worker.send(pb.WorkerMessage(report=pb.Report()))
    assert worker.stream.code is grpc.StatusCode.INVALID_ARGUMENT


def test_report_that_is_too_long_ends_the_stream(fleet: Fleet, agent: FakeAgent) -> None:
    names = [f"rack-{number}" for number in range(MAX_REPORT_ENTRIES + 1)]
    agent.send(pb.WorkerMessage(report=pb.Report(registrations=[pb.Register(worker_id=name) for name in names])))
    assert agent.stream.code is grpc.StatusCode.INVALID_ARGUMENT
    assert fleet.manager.get_all_worker_telemetry() == {}


def test_stopping_master_ends_the_stream_once(agent: FakeAgent, table: SessionTable) -> None:
    agent.carry("rack-1", "rack-2")
    table.end_all()
    assert agent.stream.code is grpc.StatusCode.UNAVAILABLE
    late = FakeAgent(table)
    late.send(pb.WorkerMessage(report=pb.Report(registrations=[pb.Register(worker_id="rack-1")])))
    assert late.stream.code is grpc.StatusCode.UNAVAILABLE


# With a CA


CERTIFICATE = WorkerCertificate("rack-1", "5e1", NOW - 60.0, NOW + 60.0)


def test_certificate_allows_its_own_worker_and_no_other(fleet: Fleet, entries: list[AuditEntry]) -> None:
    admission = Admission(lambda: NOW)
    table = SessionTable(fleet.manager, FakeAttemptReports(), fleet.instruments, admission, entries.append)
    agent = FakeAgent(table, certificate=CERTIFICATE)
    answer = agent.carry("rack-1", "rack-2")
    assert answer.accepted == 1
    assert refusals(answer) == {"rack-2": "PERMISSION_DENIED"}
    assert list(fleet.manager.get_all_worker_telemetry()) == ["rack-1"]
    assert (entries[-1].actor, entries[-1].target) == ("worker:rack-1", "rack-2")
    admission.replace(["5e1"])
    table.end_refused()
    assert agent.stream.code is grpc.StatusCode.UNAUTHENTICATED


def test_agent_without_a_certificate_speaks_for_nobody(fleet: Fleet) -> None:
    table = SessionTable(fleet.manager, FakeAttemptReports(), fleet.instruments, Admission(lambda: NOW))
    assert refusals(FakeAgent(table).carry("rack-1")) == {"rack-1": "PERMISSION_DENIED"}
