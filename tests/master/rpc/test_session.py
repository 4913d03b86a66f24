"""master.rpc.session: one stream, message by message"""

import asyncio
from typing import Any

import grpc
import pytest

from fleetpulse.master.audit.entries import AuditEntry
from fleetpulse.master.config import LeaseConfig
from fleetpulse.master.errors import InvalidMessage
from fleetpulse.master.pki.admission import Admission, WorkerCertificate
from fleetpulse.master.rpc.session import MASTER_VERSION, SessionTable, StreamSession
from fleetpulse.master.rpc.status import RpcStatus
from fleetpulse.master.rpc.stream import Stream
from fleetpulse.master.tasks.attempt_reports import AttemptReportHandler
from fleetpulse.master.tasks.messages import WorkerLink
from fleetpulse.master.telemetry.records import Allocation
from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.master.fleet import Fleet, heartbeat, running_fleet, settle
from tests.master.hostile import BAD_WORKER_IDS


class FakeStream(Stream):
    """Keeps what is sent and how the stream was ended."""

    def __init__(self) -> None:
        super().__init__(asyncio.new_event_loop(), "ipv4:127.0.0.1:40000")
        self._loop.close()
        self.sent: list[pb.MasterMessage] = []
        self.endings: list[RpcStatus] = []

    def send(self, message: bytes) -> None:
        assert not self.endings, "sent after the end"
        self.sent.append(pb.MasterMessage.FromString(message))

    def end(self, status: RpcStatus) -> None:
        self.endings.append(status)

    @property
    def code(self) -> grpc.StatusCode | None:
        """How the stream was ended; ``None`` while it is open. It ends once."""
        assert len(self.endings) <= 1
        return self.endings[0].code if self.endings else None


class FakeAttemptReports(AttemptReportHandler):
    """Keeps every attempt that a worker holds, and what the streams hand over."""

    def __init__(self) -> None:
        self.links: dict[str, WorkerLink] = {}
        self.received: list[tuple[str, pb.TaskUpdate | pb.LogChunk]] = []

    def register(self, register: pb.Register, _link: WorkerLink) -> list[pb.KeptAttempt]:
        assert register.worker_id not in self.links, "the older link is removed first"
        return [pb.KeptAttempt(id=held, log_received_bytes=7) for held in register.attempts_held]

    def registered(self, worker_id: str, link: WorkerLink) -> None:
        self.links[worker_id] = link
        link.send(pb.MasterMessage(drain=pb.Drain(draining=True)))

    def unregister(self, worker_id: str, link: WorkerLink) -> None:
        if self.links.get(worker_id) is link:
            del self.links[worker_id]

    def update(self, worker_id: str, update: pb.TaskUpdate, link: WorkerLink) -> None:
        assert self.links[worker_id] is link
        self.received.append((worker_id, update))

    def log(self, worker_id: str, message: pb.LogChunk, link: WorkerLink) -> None:
        assert self.links[worker_id] is link
        self.received.append((worker_id, message))


class FakeWorker:
    """A session, and the worker's end of its stream."""

    def __init__(
        self,
        table: SessionTable,
        worker_id: str = "rack-7",
        incarnation_id: str = "first",
        certificate: WorkerCertificate | None = None,
    ) -> None:
        self.stream = FakeStream()
        self.session = StreamSession(table, self.stream, certificate)
        self.worker_id, self.incarnation_id = worker_id, incarnation_id
        self.now = 1000.0  # when a fleet's clock starts

    def send(self, *messages: pb.WorkerMessage) -> None:
        self.send_bytes(*(message.SerializeToString() for message in messages))

    def send_bytes(self, *messages: bytes) -> None:
        """They arrive before the hub takes any."""
        for data in messages:
            self.stream.put(data, self.now)
        self.session.process()
        settle()

    def register(self, **fields: Any) -> "FakeWorker":
        register = pb.Register(worker_id=self.worker_id, incarnation_id=self.incarnation_id, **fields)
        self.send(pb.WorkerMessage(register=register))
        return self

    def beat(self, **fields: Any) -> "FakeWorker":
        identity = {"worker_id": self.worker_id, "incarnation_id": self.incarnation_id}
        self.send(pb.WorkerMessage(heartbeat=pb.Heartbeat(**{**identity, **fields})))
        return self

    def say_goodbye(self, reason: str = "the machine is switched off") -> None:
        self.send(pb.WorkerMessage(goodbye=pb.Goodbye(reason=reason)))


@pytest.fixture
def reports() -> FakeAttemptReports:
    return FakeAttemptReports()


@pytest.fixture
def entries() -> list[AuditEntry]:
    """What was recorded in the audit trail."""
    return []


@pytest.fixture
def table(fleet: Fleet, reports: FakeAttemptReports, entries: list[AuditEntry]) -> SessionTable:
    return SessionTable(fleet.manager, reports, fleet.instruments, record=entries.append)


def refused(fleet: Fleet, reason: str) -> float | None:
    return fleet.metric("worker_sessions_refused_total", reason=reason)


# Registration and heartbeats


def test_registered_worker_gets_the_lease() -> None:
    with running_fleet(LeaseConfig(heartbeat_interval_seconds=2.5, inactivity_timeout_seconds=12.0)) as fleet:
        worker = FakeWorker(SessionTable(fleet.manager, FakeAttemptReports(), fleet.instruments))
        assert worker.stream.sent == []
        worker.register(hostname="rack-7.example.com")
        answer, _ = worker.stream.sent
        assert answer.registered == pb.Registered(
            heartbeat_interval_seconds=2.5, inactivity_timeout_seconds=12.0, master_version=MASTER_VERSION
        )
        assert fleet.manager.get_worker_telemetry("rack-7").registration.hostname == "rack-7.example.com"
        assert fleet.metric("worker_sessions") == 1


def test_returning_worker_is_told_whether_it_is_drained(fleet: Fleet, table: SessionTable) -> None:
    FakeWorker(table).register()
    for reason in ("a new disk", "", None):
        fleet.manager.set_allocation("rack-7", Allocation(drain_reason=reason))
        returned = FakeWorker(table).register()
        assert returned.stream.sent[0].registered.draining == (reason is not None)


def test_heartbeat_reaches_the_manager(fleet: Fleet, table: SessionTable) -> None:
    worker = FakeWorker(table).register().beat(load=pb.Load(load1=1.0))
    assert fleet.manager.get_worker_telemetry("rack-7").reading.load.load1 == 1.0
    assert worker.stream.code is None


def test_unknown_kind_of_message_is_ignored(fleet: Fleet, table: SessionTable) -> None:
    worker = FakeWorker(table).register()
    worker.send_bytes(b"\x82\x7d\x02hi")  # field 2000
    worker.beat(load=pb.Load(load1=1.0))
    assert worker.stream.code is None
    assert fleet.manager.get_worker_telemetry("rack-7").reading.load.load1 == 1.0


# Tasks


HELD = pb.AttemptId(task_id="task-1", attempt=2)


def test_registered_message_comes_before_other_messages(table: SessionTable) -> None:
    worker = FakeWorker(table).register(attempts_held=[HELD])
    registered, drain = worker.stream.sent
    assert registered.registered.attempts_to_keep == [pb.KeptAttempt(id=HELD, log_received_bytes=7)]
    assert drain.drain.draining


def test_task_updates_and_logs_are_handed_over_with_the_worker_id(
    table: SessionTable, reports: FakeAttemptReports
) -> None:
    worker = FakeWorker(table).register()
    update = pb.TaskUpdate(id=HELD, update_number=1, phase=pb.ATTEMPT_PHASE_RUNNING)
    chunk = pb.LogChunk(id=HELD, offset_bytes=0, data=b"hello")
    worker.send(pb.WorkerMessage(task_update=update))
    worker.send(pb.WorkerMessage(log_chunk=chunk))
    assert reports.received == [("rack-7", update), ("rack-7", chunk)]


@pytest.mark.parametrize("how", ["closed", "goodbye", "superseded"])
def test_link_is_unregistered_when_the_stream_is_over(
    table: SessionTable, reports: FakeAttemptReports, how: str
) -> None:
    worker = FakeWorker(table).register()
    link = reports.links["rack-7"]
    if how == "closed":
        worker.session.close()
    elif how == "goodbye":
        worker.say_goodbye()
    else:
        FakeWorker(table).register()
    assert reports.links.get("rack-7") is not link
    before = len(worker.stream.sent)
    link.send(pb.MasterMessage(drain=pb.Drain()))
    assert len(worker.stream.sent) == before


# Ended by the worker


def test_goodbye_forgets_the_worker(fleet: Fleet, table: SessionTable) -> None:
    worker = FakeWorker(table).register()
    worker.say_goodbye()
    assert fleet.manager.get_all_worker_telemetry() == {}
    assert fleet.metric("worker_sessions") == 0
    worker.session.close()
    assert worker.stream.code is None


def test_goodbye_is_logged_in_one_line(table: SessionTable, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        FakeWorker(table).register().say_goodbye("bye\n" + "x" * 10_000)
    (message,) = [record.getMessage() for record in caplog.records if "goodbye" in record.getMessage()]
    assert message.isprintable()
    assert len(message) < 300


def test_heartbeat_after_goodbye_is_ignored(fleet: Fleet, table: SessionTable) -> None:
    worker = FakeWorker(table).register()
    worker.say_goodbye()
    worker.beat()
    assert fleet.manager.get_all_worker_telemetry() == {}


def test_broken_stream_keeps_the_worker_and_releases_its_id(fleet: Fleet, table: SessionTable) -> None:
    worker = FakeWorker(table).register()
    worker.session.close()
    worker.session.close()
    assert fleet.is_active()
    assert fleet.metric("worker_sessions") == 0
    other = FakeWorker(table, incarnation_id="second").register()
    assert other.stream.code is None
    assert fleet.manager.get_worker_telemetry("rack-7").registration.incarnation_id == "second"


def test_forgotten_worker_returns_with_its_registration(fleet: Fleet, table: SessionTable) -> None:
    worker = FakeWorker(table).register(hostname="rack-7.example.com")
    fleet.manager.unregister_worker("rack-7")
    worker.beat(load=pb.Load(load1=1.0))
    telemetry = fleet.manager.get_worker_telemetry("rack-7")
    assert (telemetry.registration.hostname, telemetry.reading.load.load1) == ("rack-7.example.com", 1.0)
    fleet.manager.unregister_worker("rack-7")
    worker.say_goodbye()
    assert fleet.manager.get_all_worker_telemetry() == {}
    assert worker.stream.code is None


# Ended by the master


@pytest.mark.parametrize(
    "message",
    [
        pb.WorkerMessage(),
        pb.WorkerMessage(heartbeat=pb.Heartbeat(worker_id="rack-7")),
        pb.WorkerMessage(goodbye=pb.Goodbye()),
    ],
)
def test_first_message_must_be_register(fleet: Fleet, table: SessionTable, message: pb.WorkerMessage) -> None:
    worker = FakeWorker(table)
    worker.send(message)
    assert worker.stream.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "first message must be register" in worker.stream.endings[0].details
    assert refused(fleet, "protocol_violation") == 1
    assert fleet.manager.get_all_worker_telemetry() == {}


def test_second_register_ends_the_stream(fleet: Fleet, table: SessionTable) -> None:
    worker = FakeWorker(table).register().register()
    assert worker.stream.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "twice" in worker.stream.endings[0].details
    assert refused(fleet, "protocol_violation") == 1


@pytest.mark.parametrize("worker_id", BAD_WORKER_IDS, ids=lambda worker_id: ascii(worker_id[:20]))
def test_invalid_worker_id_ends_the_stream(fleet: Fleet, table: SessionTable, worker_id: str) -> None:
    healthy = FakeWorker(table, "healthy").register()
    worker = FakeWorker(table, worker_id).register()
    assert worker.stream.code is grpc.StatusCode.INVALID_ARGUMENT
    assert worker.stream.sent == []
    assert refused(fleet, InvalidMessage.reason) == 1
    healthy.beat(load=pb.Load(load1=1.0))
    assert healthy.stream.code is None
    assert fleet.manager.get_all_worker_telemetry().keys() == {"healthy"}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"cpu": pb.Cpu(usage_percent=float("nan"))}, "invalid_reading"),
        ({"cpu": pb.Cpu(usage_percent=-0.1)}, "invalid_reading"),
        ({"gpus": [pb.Gpu(utilization_percent=100.1)]}, "invalid_reading"),
        ({"gpus": [pb.Gpu(name="a\nb")]}, "invalid_message"),
        ({"worker_id": "rack-8"}, "invalid_message"),
        ({"incarnation_id": "second"}, "invalid_message"),
    ],
)
def test_invalid_heartbeat_ends_only_its_own_stream(
    fleet: Fleet, table: SessionTable, fields: dict[str, Any], reason: str
) -> None:
    healthy = FakeWorker(table, "healthy").register()
    worker = FakeWorker(table).register().beat(load=pb.Load(load1=1.0)).beat(**fields)
    assert worker.stream.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused(fleet, reason) == 1
    assert fleet.manager.get_worker_telemetry("rack-7").reading.load.load1 == 1.0
    assert "rack-8" not in fleet.manager.get_all_worker_telemetry()
    assert healthy.beat().stream.code is None


@pytest.mark.parametrize("data", [b"\xff\xff", bytes(10 * 1024 * 1024)], ids=["no message", "10 MB"])
@pytest.mark.parametrize("is_registered", [False, True])
def test_malformed_message_ends_the_stream(fleet: Fleet, table: SessionTable, data: bytes, is_registered: bool) -> None:
    worker = FakeWorker(table)
    if is_registered:
        worker.register()
    worker.send_bytes(data)
    assert worker.stream.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused(fleet, "invalid_message") == 1


def test_messages_after_the_end_are_ignored(fleet: Fleet, table: SessionTable) -> None:
    worker = FakeWorker(table).register().register()
    worker.beat(load=pb.Load(load1=9.0)).register()
    worker.session.end(InvalidMessage("once more"))
    worker.session.expect_registration()
    worker.session.close()
    assert worker.stream.code is grpc.StatusCode.INVALID_ARGUMENT
    assert fleet.manager.get_worker_telemetry("rack-7").reading.load.load1 is None
    assert fleet.metric("worker_sessions") == 0


def test_stream_without_registration_times_out(fleet: Fleet, table: SessionTable) -> None:
    worker = FakeWorker(table)
    worker.session.expect_registration()
    assert worker.stream.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "send register first" in worker.stream.endings[0].details
    assert refused(fleet, "registration_timeout") == 1


def test_registered_stream_does_not_time_out(table: SessionTable) -> None:
    worker = FakeWorker(table).register()
    worker.session.expect_registration()
    assert worker.stream.code is None


def test_late_registration_does_not_time_out(table: SessionTable) -> None:
    worker = FakeWorker(table)
    register = pb.Register(worker_id="rack-7", incarnation_id="first")
    worker.stream.put(pb.WorkerMessage(register=register).SerializeToString(), worker.now)
    worker.session.expect_registration()
    worker.session.process()
    assert worker.stream.code is None
    assert worker.session.worker_id == "rack-7"


def test_registration_leaves_the_line_however_it_ends(table: SessionTable) -> None:
    for worker_id, data in (("a", b"\xff"), ("b", beat_message(1).SerializeToString())):
        table.registrations.arrive()
        FakeWorker(table, worker_id).send_bytes(data)
    table.registrations.arrive()
    assert table.registrations.waiting == 1
    FakeWorker(table, "c").register().beat().beat()
    assert table.registrations.waiting == 0


def test_registered_worker_is_told_over_how_long_to_spread_its_return(table: SessionTable) -> None:
    table.registrations.cost_seconds = 2.5
    first, second = FakeWorker(table, "a").register(), FakeWorker(table, "b").register()
    spread = [worker.stream.sent[0].registered.reconnect_spread_seconds for worker in (first, second)]
    assert spread == [2.5, 5.0]


# Several messages at once


def beat_message(sequence: int, **fields: Any) -> pb.WorkerMessage:
    identity = {"worker_id": "rack-7", "incarnation_id": "first", "sequence_number": sequence}
    return pb.WorkerMessage(heartbeat=pb.Heartbeat(**{**identity, **fields}))


def test_newest_heartbeat_replaces_those_that_wait_and_is_no_gap(fleet: Fleet, table: SessionTable) -> None:
    worker = FakeWorker(table).register().beat(sequence_number=1)
    worker.send(*(beat_message(number, load=pb.Load(load1=float(number))) for number in range(2, 7)))
    telemetry = fleet.manager.get_worker_telemetry("rack-7")
    assert telemetry.reading.load.load1 == 6.0
    assert (telemetry.counts.received, telemetry.counts.missed) == (2, 0)
    assert fleet.metric("heartbeats_superseded_total") == 4
    assert fleet.metric("heartbeats_received_total") == 2
    worker.send(beat_message(9))
    assert fleet.manager.get_worker_telemetry("rack-7").counts.missed == 2


def test_heartbeats_that_are_missed_among_the_superseded_are_counted(fleet: Fleet, table: SessionTable) -> None:
    worker = FakeWorker(table).register().beat(sequence_number=1)
    worker.send(beat_message(3), beat_message(6))
    assert fleet.manager.get_worker_telemetry("rack-7").counts.missed == 3


def test_task_updates_that_wait_are_all_handled_in_order(table: SessionTable, reports: FakeAttemptReports) -> None:
    worker = FakeWorker(table).register()
    messages = []
    for number in range(1, 9):
        messages += [beat_message(number), pb.WorkerMessage(task_update=pb.TaskUpdate(update_number=number))]
    worker.send(*messages)
    assert reports.received == [("rack-7", pb.TaskUpdate(update_number=number)) for number in range(1, 9)]


def test_fault_of_the_master_loses_only_the_message_that_met_it(fleet: Fleet) -> None:
    class Faulty(FakeAttemptReports):
        def log(self, worker_id: str, message: pb.LogChunk, link: WorkerLink) -> None:
            raise KeyError(worker_id)

    reports = Faulty()
    worker = FakeWorker(SessionTable(fleet.manager, reports, fleet.instruments)).register()
    update = pb.TaskUpdate(update_number=1)
    with pytest.raises(ExceptionGroup, match="rack-7"):
        worker.send(pb.WorkerMessage(log_chunk=pb.LogChunk()), pb.WorkerMessage(task_update=update))
    assert reports.received == [("rack-7", update)]
    assert worker.stream.code is None


def test_stream_that_ends_ignores_what_waits_behind(fleet: Fleet, table: SessionTable) -> None:
    worker = FakeWorker(table)
    register = pb.WorkerMessage(register=pb.Register(worker_id="rack-7", incarnation_id="first"))
    worker.send(register, register, beat_message(1, load=pb.Load(load1=9.0)))
    assert worker.stream.code is grpc.StatusCode.INVALID_ARGUMENT
    assert fleet.manager.get_worker_telemetry("rack-7").reading.load.load1 is None


def test_table_knows_when_a_registered_incarnation_was_last_heard(table: SessionTable) -> None:
    worker = FakeWorker(table).register()
    worker.now = 1020.0
    worker.stream.put(beat_message(1).SerializeToString(), worker.now)
    assert table.last_heard("rack-7", "first") == 1020.0
    assert table.last_heard("rack-7", "second") is None
    assert table.last_heard("rack-8", "first") is None
    worker.session.end(InvalidMessage("something"))
    assert table.last_heard("rack-7", "first") is None


def test_full_master_refuses_a_worker() -> None:
    with running_fleet(LeaseConfig(max_workers=1)) as fleet:
        table = SessionTable(fleet.manager, FakeAttemptReports(), fleet.instruments)
        FakeWorker(table, "a").register()
        worker = FakeWorker(table, "b").register()
        assert worker.stream.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused(fleet, "fleet_full") == 1


# Certificates


NOW = 1000.0
CERTIFICATE = WorkerCertificate("rack-7", "5e1", NOW - 60.0, NOW + 60.0)


@pytest.fixture
def admission() -> Admission:
    return Admission(lambda: NOW)


@pytest.fixture
def secured(fleet: Fleet, reports: FakeAttemptReports, admission: Admission) -> SessionTable:
    """Of a master with a CA."""
    return SessionTable(fleet.manager, reports, fleet.instruments, admission)


@pytest.mark.parametrize(
    ("certificate", "code", "reason"),
    [
        (None, grpc.StatusCode.PERMISSION_DENIED, "certificate_mismatch"),
        (CERTIFICATE._replace(worker_id="rack-8"), grpc.StatusCode.PERMISSION_DENIED, "certificate_mismatch"),
        (CERTIFICATE._replace(serial="bad"), grpc.StatusCode.UNAUTHENTICATED, "certificate_revoked"),
        (CERTIFICATE._replace(not_after=NOW), grpc.StatusCode.UNAUTHENTICATED, "certificate_expired"),
    ],
    ids=["none", "another's", "revoked", "expired"],
)
def test_registration_requires_the_workers_valid_certificate(
    fleet: Fleet,
    secured: SessionTable,
    admission: Admission,
    certificate: WorkerCertificate | None,
    code: grpc.StatusCode,
    reason: str,
) -> None:
    admission.replace(["bad"])
    worker = FakeWorker(secured, certificate=certificate).register()
    assert worker.stream.code is code
    assert refused(fleet, reason) == 1
    assert fleet.manager.get_all_worker_telemetry() == {}
    assert FakeWorker(secured, certificate=CERTIFICATE).register().stream.code is None


def test_session_ends_when_its_certificate_is_revoked(
    fleet: Fleet, secured: SessionTable, admission: Admission
) -> None:
    worker = FakeWorker(secured, certificate=CERTIFICATE).register()
    other = FakeWorker(
        secured, "rack-8", certificate=WorkerCertificate("rack-8", "5e2", NOW - 60.0, NOW + 60.0)
    ).register()
    secured.end_refused()
    assert worker.stream.endings == []
    admission.replace(["5e1"])
    secured.end_refused()
    assert [ending.code for ending in worker.stream.endings] == [grpc.StatusCode.UNAUTHENTICATED]
    assert refused(fleet, "certificate_revoked") == 1
    assert other.stream.endings == []


def test_gauges_show_the_oldest_certificate_of_connected_workers(fleet: Fleet, secured: SessionTable) -> None:
    def shown() -> tuple[float | None, float | None]:
        secured.end_refused()
        used = fleet.metric("certificate_life_used_ratio", holder="worker")
        return used, fleet.metric("certificate_expiry_timestamp_seconds", holder="worker")

    assert shown() == (None, None)
    first = FakeWorker(secured, certificate=CERTIFICATE).register()
    assert shown() == (0.5, NOW + 60.0)
    older = CERTIFICATE._replace(worker_id="rack-8", serial="5e2", not_before=NOW - 200.0, not_after=NOW + 50.0)
    worker = FakeWorker(secured, "rack-8", certificate=older).register()
    assert shown() == (0.8, NOW + 50.0)
    worker.session.close()
    assert shown() == (0.5, NOW + 60.0)
    first.session.close()
    assert shown() == (None, None)


# Two streams of one worker


def test_newer_stream_of_the_same_incarnation_takes_over(fleet: Fleet, table: SessionTable) -> None:
    older = FakeWorker(table).register()
    newer = FakeWorker(table).register()
    assert older.stream.code is grpc.StatusCode.ABORTED
    assert newer.stream.code is None
    assert refused(fleet, "superseded") == 1
    assert fleet.metric("worker_sessions") == 1
    older.session.close()  # its later end releases nothing
    assert FakeWorker(table, incarnation_id="second").register().stream.code is grpc.StatusCode.ALREADY_EXISTS
    older.say_goodbye()
    newer.beat(load=pb.Load(load1=1.0))
    assert fleet.manager.get_worker_telemetry("rack-7").reading.load.load1 == 1.0


def test_another_incarnation_is_refused_while_the_first_is_active(
    fleet: Fleet, table: SessionTable, caplog: pytest.LogCaptureFixture
) -> None:
    first = FakeWorker(table).register()
    second = FakeWorker(table, incarnation_id="second").register()
    assert second.stream.code is grpc.StatusCode.ALREADY_EXISTS
    assert "rack-7 is in use" in second.stream.endings[0].details
    assert "rack-7 is taken" in caplog.text
    assert refused(fleet, "worker_id_taken") == 1
    second.session.close()
    assert first.beat().stream.code is None
    fleet.pass_time(10.25)
    third = FakeWorker(table, incarnation_id="third").register()
    assert third.stream.code is None
    assert first.stream.code is grpc.StatusCode.ABORTED


# Audit entries


def recorded(entries: list[AuditEntry]) -> list[tuple[str, str, str]]:
    return [(one.actor, one.action, one.outcome) for one in entries]


def test_register_takeover_and_goodbye_are_recorded(table: SessionTable, entries: list[AuditEntry]) -> None:
    FakeWorker(table).register().beat().beat().session.close()
    FakeWorker(table).register().beat()
    FakeWorker(table).register().beat().say_goodbye("bye\n\x1b[2J")
    actions = ["register", "register", "take_over", "goodbye"]
    assert recorded(entries) == [("worker:rack-7", action, "ok") for action in actions]
    assert {(one.source, one.client, one.target, one.status) for one in entries} == {
        ("grpc", "127.0.0.1", "rack-7", "OK")
    }
    assert (entries[0].detail, entries[-1].detail) == ("incarnation first", "bye\n\x1b[2J")


def test_refusals_are_recorded_with_their_reason(table: SessionTable, entries: list[AuditEntry]) -> None:
    FakeWorker(table).beat()
    FakeWorker(table).session.expect_registration()
    FakeWorker(table).register().beat(worker_id="rack-8")
    FakeWorker(table, "taken").register()
    FakeWorker(table, "taken", "second").register()
    assert [(one.actor, one.action, one.status) for one in entries if one.outcome == "refused"] == [
        ("anonymous", "register", "INVALID_ARGUMENT"),
        ("anonymous", "register", "DEADLINE_EXCEEDED"),
        ("worker:rack-7", "report", "INVALID_ARGUMENT"),
        ("anonymous", "register", "ALREADY_EXISTS"),
    ]
    assert entries[0].detail.startswith("protocol_violation: the first message must be register")


def test_stopping_master_records_no_refusals(table: SessionTable, entries: list[AuditEntry]) -> None:
    FakeWorker(table).register()
    table.end_all()
    FakeWorker(table, "late").register()
    assert recorded(entries) == [("worker:rack-7", "register", "ok")]


# The master stops


def test_stopping_master_ends_every_stream_and_refuses_new_ones(fleet: Fleet, table: SessionTable) -> None:
    workers = [FakeWorker(table, worker_id).register() for worker_id in ("a", "b")]
    silent = FakeWorker(table, "silent")
    table.end_all()
    assert [worker.stream.code for worker in workers] == [grpc.StatusCode.UNAVAILABLE] * 2
    assert fleet.metric("worker_sessions") == 0
    assert silent.register().stream.code is grpc.StatusCode.UNAVAILABLE


def answer(fleet: Fleet, data: bytes) -> bytes | RpcStatus:
    result = SessionTable(fleet.manager, FakeAttemptReports(), fleet.instruments).answer_heartbeat(data)
    settle()
    return result


def test_single_heartbeat_registers_the_worker_and_returns_the_lease() -> None:
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
def test_invalid_single_heartbeat_is_refused_and_counted(fleet: Fleet, data: bytes, reason: str) -> None:
    result = answer(fleet, data)
    assert isinstance(result, RpcStatus)
    assert result.code is grpc.StatusCode.INVALID_ARGUMENT
    assert result.details
    assert fleet.metric("heartbeats_rejected_total", reason=reason) == 1
    assert fleet.manager.get_all_worker_telemetry() == {}


def test_single_heartbeat_of_another_incarnation_is_refused(fleet: Fleet) -> None:
    fleet.beat(incarnation_id="first")
    result = answer(fleet, heartbeat().SerializeToString())
    assert isinstance(result, RpcStatus)
    assert result.code is grpc.StatusCode.ALREADY_EXISTS


def test_repeated_single_heartbeat_gets_the_same_answer(fleet: Fleet) -> None:
    data = heartbeat(incarnation_id="first", sequence_number=1).SerializeToString()
    assert answer(fleet, data) == answer(fleet, data)
    assert fleet.metric("heartbeats_received_total") == 1


def test_new_workers_and_refusals_are_recorded_but_not_heartbeats(fleet: Fleet) -> None:
    entries: list[AuditEntry] = []
    table = SessionTable(fleet.manager, FakeAttemptReports(), fleet.instruments, record=entries.append)
    for worker_id in ("rack-7", "rack-7", "rack-7", "../a"):
        data = heartbeat(worker_id).SerializeToString()
        table.answer_heartbeat(data, peer="ipv4:192.0.2.7:40000")
        settle()
    came, refused = entries
    assert (came.action, came.actor, came.client, came.outcome) == ("register", "worker:rack-7", "192.0.2.7", "ok")
    assert (refused.action, refused.actor, refused.target) == ("send_heartbeat", "anonymous", "../a")
    assert (refused.outcome, refused.status) == ("refused", "INVALID_ARGUMENT")
    assert refused.detail.startswith("invalid_message: ")
