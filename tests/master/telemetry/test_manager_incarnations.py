"""master.telemetry.manager: which incarnation holds a worker id, and sequence numbers"""

import pytest

from fleetpulse.master.errors import WorkerIdTaken
from fleetpulse.master.telemetry.records import Registration
from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.master.fleet import Fleet, heartbeat, settle

FIRST, SECOND = Registration("first"), Registration("second")


def speaker(fleet: Fleet) -> str:
    return fleet.manager.get_worker_telemetry("rack-7").registration.incarnation_id


def test_same_incarnation_takes_over_at_once(fleet: Fleet) -> None:
    fleet.manager.register_worker("rack-7", FIRST)
    fleet.manager.register_worker("rack-7", FIRST)
    assert speaker(fleet) == "first"


def test_other_incarnation_is_refused_while_the_first_beats(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    fleet.manager.register_worker("rack-7", FIRST)
    fleet.pass_time(5.0)
    fleet.beat(incarnation_id="first", sequence_number=1)
    fleet.pass_time(10.0)  # two intervals
    before = fleet.manager.get_all_worker_telemetry()
    with pytest.raises(WorkerIdTaken, match=r"rack-7 is in use.* 10\.0 s ago"):
        fleet.manager.register_worker("rack-7", SECOND)
    with pytest.raises(WorkerIdTaken):
        fleet.manager.process_heartbeat(heartbeat(incarnation_id="second"))
    assert fleet.manager.get_all_worker_telemetry() == before
    assert "rack-7 is taken" in caplog.text
    assert fleet.metric("heartbeats_rejected_total", reason="worker_id_taken") == 1


def test_refused_incarnation_does_not_renew_the_lease(fleet: Fleet) -> None:
    fleet.manager.register_worker("rack-7", FIRST)
    fleet.pass_time(9.0)
    with pytest.raises(WorkerIdTaken):
        fleet.manager.register_worker("rack-7", SECOND)
    fleet.pass_time(1.25)  # more than two intervals since the first was heard
    fleet.manager.register_worker("rack-7", SECOND)
    assert speaker(fleet) == "second"


def test_other_incarnation_is_accepted_after_two_silent_intervals(fleet: Fleet) -> None:
    fleet.manager.register_worker("rack-7", FIRST)
    fleet.pass_time(10.25)
    fleet.beat(incarnation_id="second", load=pb.Load(load1=2.0))
    assert speaker(fleet) == "second"
    assert fleet.manager.get_worker_telemetry("rack-7").reading.load.load1 == 2.0
    with pytest.raises(WorkerIdTaken):
        fleet.manager.process_heartbeat(heartbeat(incarnation_id="first"))


def test_takeover_by_heartbeat_keeps_the_registration(fleet: Fleet) -> None:
    fleet.manager.register_worker("rack-7", Registration("first", hostname="rack-7.example.com"))
    fleet.manager.release_worker("rack-7", "first")
    fleet.beat(incarnation_id="second")
    assert fleet.manager.get_worker_telemetry("rack-7").registration == Registration("second", "rack-7.example.com")


def test_other_incarnation_is_accepted_when_the_first_is_inactive(fleet: Fleet) -> None:
    fleet.manager.register_worker("rack-7", FIRST)
    fleet.pass_time(60.0)
    fleet.manager.register_worker("rack-7", SECOND)
    assert speaker(fleet) == "second"
    assert fleet.is_active()


def test_other_incarnation_is_accepted_after_release(fleet: Fleet) -> None:
    fleet.manager.register_worker("rack-7", FIRST)
    fleet.manager.release_worker("rack-7", "first")
    fleet.manager.register_worker("rack-7", SECOND)
    assert speaker(fleet) == "second"


def test_only_the_holder_can_release_the_id(fleet: Fleet) -> None:
    fleet.manager.register_worker("rack-7", FIRST)
    fleet.manager.release_worker("rack-7", "second")
    fleet.manager.release_worker("stranger", "first")
    with pytest.raises(WorkerIdTaken):
        fleet.manager.register_worker("rack-7", SECOND)


def test_returning_incarnation_holds_the_id_again(fleet: Fleet) -> None:
    fleet.manager.register_worker("rack-7", FIRST)
    fleet.manager.release_worker("rack-7", "first")
    fleet.manager.register_worker("rack-7", FIRST)
    with pytest.raises(WorkerIdTaken):
        fleet.manager.register_worker("rack-7", SECOND)


def test_first_incarnation_still_holds_the_id_after_a_stall(fleet: Fleet) -> None:
    fleet.manager.register_worker("rack-7", FIRST)
    fleet.pass_time(1.0)
    fleet.clock.advance(60.0)
    with pytest.raises(WorkerIdTaken):
        fleet.manager.register_worker("rack-7", SECOND)


def test_queue_of_the_first_incarnation_is_dropped_on_takeover(fleet: Fleet) -> None:
    fleet.beat(incarnation_id="first", load=pb.Load(load1=1.0))
    fleet.manager.process_heartbeat(heartbeat(incarnation_id="first", load=pb.Load(load1=99.0)))
    fleet.manager.release_worker("rack-7", "first")
    fleet.manager.register_worker("rack-7", SECOND)
    settle()
    assert fleet.manager.get_worker_telemetry("rack-7").reading.load.load1 == 1.0
    assert 99.0 not in [telemetry.reading.load.load1 for telemetry in fleet.seen.changes]


# Sequence numbers


def sent(fleet: Fleet, *numbers: int, incarnation_id: str = "first") -> tuple[int, int]:
    """Received and missed, after heartbeats with these numbers."""
    for number in numbers:
        fleet.beat(incarnation_id=incarnation_id, sequence_number=number)
    counts = fleet.manager.get_worker_telemetry("rack-7").counts
    return counts.received, counts.missed


def test_repeated_sequence_number_is_counted_and_ignored(fleet: Fleet) -> None:
    fleet.beat(incarnation_id="first", sequence_number=5, load=pb.Load(load1=1.0))
    before = fleet.manager.get_worker_telemetry("rack-7")
    for number in (5, 4, 1):
        fleet.beat(incarnation_id="first", sequence_number=number, load=pb.Load(load1=9.0))
    assert fleet.manager.get_worker_telemetry("rack-7") == before
    assert fleet.metric("heartbeats_rejected_total", reason="stale") == 3
    assert fleet.metric("heartbeats_received_total") == 1


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([1, 2, 3], (3, 0)),
        ([1, 2, 5, 6, 9], (5, 4)),
        ([100, 101], (2, 0)),  # the master was restarted: what came before is not its own to count
        ([100, 102], (2, 1)),
        ([1, 4, 2], (2, 2)),  # late is as good as never
        ([0, 0, 0], (3, 0)),  # does not count
        ([1, 0, 3], (3, 1)),
        ([2**64 - 1], (1, 0)),
    ],
)
def test_gaps_in_sequence_numbers_are_counted(fleet: Fleet, numbers: list[int], expected: tuple[int, int]) -> None:
    assert sent(fleet, *numbers) == expected


def test_each_incarnation_has_its_own_sequence(fleet: Fleet) -> None:
    sent(fleet, 1, 5)
    fleet.manager.release_worker("rack-7", "first")
    assert sent(fleet, 1, 2, incarnation_id="second") == (4, 3)


def test_sequence_continues_after_a_reconnect(fleet: Fleet) -> None:
    sent(fleet, 1, 2)
    fleet.manager.release_worker("rack-7", "first")
    fleet.manager.register_worker("rack-7", FIRST)
    assert sent(fleet, 5) == (3, 2)


def test_sequence_is_not_checked_without_an_incarnation(fleet: Fleet) -> None:
    assert sent(fleet, 7, 1, 2, incarnation_id="") == (3, 0)
