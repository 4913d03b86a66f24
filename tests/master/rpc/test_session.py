"""master.rpc.session: one stream, message by message"""

from typing import Any

import grpc
import pytest

from fleetpulse.master.audit.entry import AuditEntry
from fleetpulse.master.config import LeaseConfig
from fleetpulse.master.errors import InvalidMessage
from fleetpulse.master.pki.admission import Admission, WorkerCertificate
from fleetpulse.master.rpc.session import MASTER_VERSION, SessionTable, StreamSession
from fleetpulse.master.rpc.stream import RpcStatus
from fleetpulse.master.tasks.messages import WorkerLink
from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.master.fleet import Fleet, running_fleet, settle
from tests.master.hostile import BAD_WORKER_IDS


class FakeStream:
    """Keeps what is sent down it and how it was ended."""

    peer = "ipv4:127.0.0.1:40000"

    def __init__(self) -> None:
        self.sent: list[pb.MasterMessage] = []
        self.endings: list[RpcStatus] = []

    def send(self, message: bytes) -> None:
        assert not self.endings, "sent after the end"
        self.sent.append(pb.MasterMessage.FromString(message))

    def end(self, ending: RpcStatus) -> None:
        self.endings.append(ending)

    @property
    def code(self) -> grpc.StatusCode | None:
        """How the stream was ended; ``None`` while it is open. It ends once."""
        assert len(self.endings) <= 1
        return self.endings[0].code if self.endings else None


class FakeAttemptReports:
    """Keeps every attempt that a worker holds, and what the streams hand over."""

    def __init__(self) -> None:
        self.links: dict[str, WorkerLink] = {}
        self.said: list[tuple[str, pb.TaskUpdate | pb.LogChunk]] = []

    def register(self, register: pb.Register, _link: WorkerLink) -> list[pb.KeptAttempt]:
        assert register.worker_id not in self.links, "the older link is let go of first"
        return [pb.KeptAttempt(id=held, log_received_bytes=7) for held in register.attempts_held]

    def registered(self, worker_id: str, link: WorkerLink) -> None:
        self.links[worker_id] = link
        link.send(pb.MasterMessage(drain=pb.Drain(draining=True)))

    def unregister(self, worker_id: str, link: WorkerLink) -> None:
        if self.links.get(worker_id) is link:
            del self.links[worker_id]

    def update(self, worker_id: str, update: pb.TaskUpdate, link: WorkerLink) -> None:
        assert self.links[worker_id] is link
        self.said.append((worker_id, update))

    def log(self, worker_id: str, message: pb.LogChunk, link: WorkerLink) -> None:
        assert self.links[worker_id] is link
        self.said.append((worker_id, message))


class Line:
    """A session with the worker's end of it."""

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

    def say(self, message: pb.WorkerMessage) -> None:
        self.session.receive(message.SerializeToString())
        settle()

    def register(self, **fields: Any) -> "Line":
        register = pb.Register(worker_id=self.worker_id, incarnation_id=self.incarnation_id, **fields)
        self.say(pb.WorkerMessage(register=register))
        return self

    def beat(self, **fields: Any) -> "Line":
        identity = {"worker_id": self.worker_id, "incarnation_id": self.incarnation_id}
        self.say(pb.WorkerMessage(heartbeat=pb.Heartbeat(**{**identity, **fields})))
        return self

    def say_goodbye(self, reason: str = "the machine is switched off") -> None:
        self.say(pb.WorkerMessage(goodbye=pb.Goodbye(reason=reason)))


@pytest.fixture
def desk() -> FakeAttemptReports:
    return FakeAttemptReports()


@pytest.fixture
def entries() -> list[AuditEntry]:
    """What was recorded in the audit trail."""
    return []


@pytest.fixture
def table(fleet: Fleet, desk: FakeAttemptReports, entries: list[AuditEntry]) -> SessionTable:
    return SessionTable(fleet.manager, desk, fleet.instruments, record=entries.append)


def refused(fleet: Fleet, reason: str) -> float | None:
    return fleet.metric("worker_sessions_refused_total", reason=reason)


# A stream as it should be


def test_a_worker_registers_and_is_granted_terms() -> None:
    with running_fleet(LeaseConfig(heartbeat_interval_seconds=2.5, inactivity_timeout_seconds=12.0)) as fleet:
        line = Line(SessionTable(fleet.manager, FakeAttemptReports(), fleet.instruments))
        assert line.stream.sent == []
        line.register(hostname="rack-7.example.com")
        answer, _ = line.stream.sent
        assert answer.registered == pb.Registered(
            heartbeat_interval_seconds=2.5, inactivity_timeout_seconds=12.0, master_version=MASTER_VERSION
        )
        assert fleet.manager.get_worker_telemetry("rack-7").registration.hostname == "rack-7.example.com"
        assert fleet.metric("worker_sessions") == 1


def test_a_heartbeat_reaches_the_table(fleet: Fleet, table: SessionTable) -> None:
    line = Line(table).register().beat(load=pb.Load(load1=1.0))
    assert fleet.manager.get_worker_telemetry("rack-7").reading.load.load1 == 1.0
    assert line.stream.code is None
    assert line.session.received == 2


def test_a_message_of_a_kind_to_come_is_ignored(fleet: Fleet, table: SessionTable) -> None:
    line = Line(table).register()
    line.session.receive(b"\x82\x7d\x02hi")  # field 2000
    line.beat(load=pb.Load(load1=1.0))
    assert line.stream.code is None
    assert fleet.manager.get_worker_telemetry("rack-7").reading.load.load1 == 1.0


# Tasks


HELD = pb.AttemptId(task_id="task-1", attempt=2)


def test_a_worker_is_told_first_what_it_keeps(table: SessionTable) -> None:
    line = Line(table).register(attempts_held=[HELD])
    registered, drain = line.stream.sent
    assert registered.registered.attempts_to_keep == [pb.KeptAttempt(id=HELD, log_received_bytes=7)]
    assert drain.drain.draining


def test_what_a_worker_says_of_attempts_goes_to_the_desk_with_its_id(
    table: SessionTable, desk: FakeAttemptReports
) -> None:
    line = Line(table).register()
    update = pb.TaskUpdate(id=HELD, update_number=1, phase=pb.ATTEMPT_PHASE_RUNNING)
    chunk = pb.LogChunk(id=HELD, offset_bytes=0, data=b"hello")
    line.say(pb.WorkerMessage(task_update=update))
    line.say(pb.WorkerMessage(log_chunk=chunk))
    assert desk.said == [("rack-7", update), ("rack-7", chunk)]


@pytest.mark.parametrize("how", ["closed", "goodbye", "superseded"])
def test_the_desk_lets_go_of_a_stream_that_is_over(table: SessionTable, desk: FakeAttemptReports, how: str) -> None:
    line = Line(table).register()
    link = desk.links["rack-7"]
    if how == "closed":
        line.session.close()
    elif how == "goodbye":
        line.say_goodbye()
    else:
        Line(table).register()
    assert desk.links.get("rack-7") is not link
    before = len(line.stream.sent)
    link.send(pb.MasterMessage(drain=pb.Drain()))
    assert len(line.stream.sent) == before


# Ends that the worker makes


def test_a_worker_that_says_goodbye_is_forgotten_at_once(fleet: Fleet, table: SessionTable) -> None:
    line = Line(table).register()
    line.say_goodbye()
    assert fleet.manager.get_all_worker_telemetry() == {}
    assert fleet.metric("worker_sessions") == 0
    line.session.close()
    assert line.stream.code is None


def test_a_goodbye_is_logged_in_one_line(table: SessionTable, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        Line(table).register().say_goodbye("bye\n" + "x" * 10_000)
    (message,) = [record.getMessage() for record in caplog.records if "goodbye" in record.getMessage()]
    assert message.isprintable()
    assert len(message) < 300


def test_what_is_said_after_goodbye_brings_nobody_back(fleet: Fleet, table: SessionTable) -> None:
    line = Line(table).register()
    line.say_goodbye()
    line.beat()
    assert fleet.manager.get_all_worker_telemetry() == {}


def test_a_stream_that_breaks_leaves_the_worker_in_the_table_but_lets_go_of_its_id(
    fleet: Fleet, table: SessionTable
) -> None:
    line = Line(table).register()
    line.session.close()
    line.session.close()
    assert fleet.is_active()
    assert fleet.metric("worker_sessions") == 0
    other = Line(table, incarnation_id="second").register()
    assert other.stream.code is None
    assert fleet.manager.get_worker_telemetry("rack-7").registration.incarnation_id == "second"


def test_a_worker_that_was_forgotten_meanwhile_is_back_with_all_it_said(fleet: Fleet, table: SessionTable) -> None:
    line = Line(table).register(hostname="rack-7.example.com")
    fleet.manager.unregister_worker("rack-7")
    line.beat(load=pb.Load(load1=1.0))
    telemetry = fleet.manager.get_worker_telemetry("rack-7")
    assert (telemetry.registration.hostname, telemetry.reading.load.load1) == ("rack-7.example.com", 1.0)
    fleet.manager.unregister_worker("rack-7")
    line.say_goodbye()
    assert fleet.manager.get_all_worker_telemetry() == {}
    assert line.stream.code is None


# Ends that the master makes


@pytest.mark.parametrize(
    "message",
    [
        pb.WorkerMessage(),
        pb.WorkerMessage(heartbeat=pb.Heartbeat(worker_id="rack-7")),
        pb.WorkerMessage(goodbye=pb.Goodbye()),
    ],
)
def test_the_first_message_must_be_register(fleet: Fleet, table: SessionTable, message: pb.WorkerMessage) -> None:
    line = Line(table)
    line.say(message)
    assert line.stream.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "first message must be register" in line.stream.endings[0].details
    assert refused(fleet, "protocol_violation") == 1
    assert fleet.manager.get_all_worker_telemetry() == {}


def test_register_comes_once(fleet: Fleet, table: SessionTable) -> None:
    line = Line(table).register().register()
    assert line.stream.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "twice" in line.stream.endings[0].details
    assert refused(fleet, "protocol_violation") == 1


@pytest.mark.parametrize("worker_id", BAD_WORKER_IDS, ids=lambda worker_id: ascii(worker_id[:20]))
def test_a_bad_worker_id_ends_the_stream(fleet: Fleet, table: SessionTable, worker_id: str) -> None:
    healthy = Line(table, "healthy").register()
    line = Line(table, worker_id).register()
    assert line.stream.code is grpc.StatusCode.INVALID_ARGUMENT
    assert line.stream.sent == []
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
def test_a_heartbeat_that_breaks_a_rule_ends_its_own_stream(
    fleet: Fleet, table: SessionTable, fields: dict[str, Any], reason: str
) -> None:
    healthy = Line(table, "healthy").register()
    line = Line(table).register().beat(load=pb.Load(load1=1.0)).beat(**fields)
    assert line.stream.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused(fleet, reason) == 1
    assert fleet.manager.get_worker_telemetry("rack-7").reading.load.load1 == 1.0
    assert "rack-8" not in fleet.manager.get_all_worker_telemetry()
    assert healthy.beat().stream.code is None


@pytest.mark.parametrize("data", [b"\xff\xff", bytes(10 * 1024 * 1024)], ids=["no message", "10 MB"])
@pytest.mark.parametrize("is_registered", [False, True])
def test_what_cannot_be_read_ends_the_stream(
    fleet: Fleet, table: SessionTable, data: bytes, is_registered: bool
) -> None:
    line = Line(table)
    if is_registered:
        line.register()
    line.session.receive(data)
    assert line.stream.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused(fleet, "invalid_message") == 1


def test_after_the_end_nothing_is_heard_and_nothing_ends_twice(fleet: Fleet, table: SessionTable) -> None:
    line = Line(table).register().register()
    line.beat(load=pb.Load(load1=9.0)).register()
    line.session.end(InvalidMessage("once more"))
    line.session.expect_registration()
    line.session.close()
    assert line.stream.code is grpc.StatusCode.INVALID_ARGUMENT
    assert fleet.manager.get_worker_telemetry("rack-7").reading.load.load1 is None
    assert fleet.metric("worker_sessions") == 0


def test_a_stream_that_says_nothing_is_ended(fleet: Fleet, table: SessionTable) -> None:
    line = Line(table)
    line.session.expect_registration()
    assert line.stream.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "send register first" in line.stream.endings[0].details
    assert refused(fleet, "registration_timeout") == 1


def test_a_stream_that_spoke_in_time_is_not(table: SessionTable) -> None:
    line = Line(table).register()
    line.session.expect_registration()
    assert line.stream.code is None


def test_a_full_master_says_so() -> None:
    with running_fleet(LeaseConfig(max_workers=1)) as fleet:
        table = SessionTable(fleet.manager, FakeAttemptReports(), fleet.instruments)
        Line(table, "a").register()
        line = Line(table, "b").register()
        assert line.stream.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused(fleet, "fleet_full") == 1


# Certificates


NOW = 1000.0
CERTIFICATE = WorkerCertificate("rack-7", "5e1", NOW - 60.0, NOW + 60.0)


@pytest.fixture
def admission() -> Admission:
    return Admission(lambda: NOW)


@pytest.fixture
def secured(fleet: Fleet, desk: FakeAttemptReports, admission: Admission) -> SessionTable:
    """Of a master with a CA."""
    return SessionTable(fleet.manager, desk, fleet.instruments, admission)


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
def test_who_registers_must_be_who_the_certificate_says(
    fleet: Fleet,
    secured: SessionTable,
    admission: Admission,
    certificate: WorkerCertificate | None,
    code: grpc.StatusCode,
    reason: str,
) -> None:
    admission.replace(["bad"])
    line = Line(secured, certificate=certificate).register()
    assert line.stream.code is code
    assert refused(fleet, reason) == 1
    assert fleet.manager.get_all_worker_telemetry() == {}
    assert Line(secured, certificate=CERTIFICATE).register().stream.code is None


def test_a_session_ends_when_its_certificate_is_revoked(
    fleet: Fleet, secured: SessionTable, admission: Admission
) -> None:
    line = Line(secured, certificate=CERTIFICATE).register()
    other = Line(secured, "rack-8", certificate=WorkerCertificate("rack-8", "5e2", NOW - 60.0, NOW + 60.0)).register()
    secured.end_refused()
    assert line.stream.endings == []
    admission.replace(["5e1"])
    secured.end_refused()
    assert [ending.code for ending in line.stream.endings] == [grpc.StatusCode.UNAUTHENTICATED]
    assert refused(fleet, "certificate_revoked") == 1
    assert other.stream.endings == []


def test_the_oldest_certificate_of_the_connected_workers_is_shown(fleet: Fleet, secured: SessionTable) -> None:
    def shown() -> tuple[float | None, float | None]:
        secured.end_refused()
        used = fleet.metric("certificate_life_used_ratio", holder="worker")
        return used, fleet.metric("certificate_expiry_timestamp_seconds", holder="worker")

    assert shown() == (None, None)
    first = Line(secured, certificate=CERTIFICATE).register()
    assert shown() == (0.5, NOW + 60.0)
    older = CERTIFICATE._replace(worker_id="rack-8", serial="5e2", not_before=NOW - 200.0, not_after=NOW + 50.0)
    line = Line(secured, "rack-8", certificate=older).register()
    assert shown() == (0.8, NOW + 50.0)
    line.session.close()
    assert shown() == (0.5, NOW + 60.0)
    first.session.close()
    assert shown() == (None, None)


# Two streams of one worker


def test_a_newer_stream_of_the_same_incarnation_takes_over_at_once(fleet: Fleet, table: SessionTable) -> None:
    older = Line(table).register()
    newer = Line(table).register()
    assert older.stream.code is grpc.StatusCode.ABORTED
    assert newer.stream.code is None
    assert refused(fleet, "superseded") == 1
    assert fleet.metric("worker_sessions") == 1
    older.session.close()  # its end, which comes later, lets go of nothing
    assert Line(table, incarnation_id="second").register().stream.code is grpc.StatusCode.ALREADY_EXISTS
    older.say_goodbye()
    newer.beat(load=pb.Load(load1=1.0))
    assert fleet.manager.get_worker_telemetry("rack-7").reading.load.load1 == 1.0


def test_another_incarnation_is_refused_while_the_first_still_beats(
    fleet: Fleet, table: SessionTable, caplog: pytest.LogCaptureFixture
) -> None:
    first = Line(table).register()
    second = Line(table, incarnation_id="second").register()
    assert second.stream.code is grpc.StatusCode.ALREADY_EXISTS
    assert "rack-7 is in use" in second.stream.endings[0].details
    assert "rack-7 is taken" in caplog.text
    assert refused(fleet, "worker_id_taken") == 1
    second.session.close()
    assert first.beat().stream.code is None
    fleet.pass_time(10.25)
    third = Line(table, incarnation_id="third").register()
    assert third.stream.code is None
    assert first.stream.code is grpc.StatusCode.ABORTED


# What is recorded


def recorded(entries: list[AuditEntry]) -> list[tuple[str, str, str]]:
    return [(one.actor, one.action, one.outcome) for one in entries]


def test_who_comes_takes_over_and_goes_is_recorded(table: SessionTable, entries: list[AuditEntry]) -> None:
    Line(table).register().beat().beat().session.close()
    Line(table).register().beat()
    Line(table).register().beat().say_goodbye("bye\n\x1b[2J")
    actions = ["register", "register", "take_over", "goodbye"]
    assert recorded(entries) == [("worker:rack-7", action, "ok") for action in actions]
    assert {(one.source, one.client, one.target, one.status) for one in entries} == {
        ("grpc", "127.0.0.1", "rack-7", "OK")
    }
    assert (entries[0].detail, entries[-1].detail) == ("incarnation first", "bye\n\x1b[2J")


def test_who_is_refused_is_recorded_with_why(table: SessionTable, entries: list[AuditEntry]) -> None:
    Line(table).beat()
    Line(table).session.expect_registration()
    Line(table).register().beat(worker_id="rack-8")
    Line(table, "taken").register()
    Line(table, "taken", "second").register()
    assert [(one.actor, one.action, one.status) for one in entries if one.outcome == "refused"] == [
        ("anonymous", "register", "INVALID_ARGUMENT"),
        ("anonymous", "register", "DEADLINE_EXCEEDED"),
        ("worker:rack-7", "report", "INVALID_ARGUMENT"),
        ("anonymous", "register", "ALREADY_EXISTS"),
    ]
    assert entries[0].detail.startswith("protocol_violation: the first message must be register")


def test_a_master_that_stops_refuses_nobody(table: SessionTable, entries: list[AuditEntry]) -> None:
    Line(table).register()
    table.end_all()
    Line(table, "late").register()
    assert recorded(entries) == [("worker:rack-7", "register", "ok")]


# The master stops


def test_a_master_that_stops_ends_every_stream_and_takes_no_more(fleet: Fleet, table: SessionTable) -> None:
    lines = [Line(table, worker_id).register() for worker_id in ("a", "b")]
    silent = Line(table, "silent")
    table.end_all()
    assert [line.stream.code for line in lines] == [grpc.StatusCode.UNAVAILABLE] * 2
    assert fleet.metric("worker_sessions") == 0
    assert silent.register().stream.code is grpc.StatusCode.UNAVAILABLE
