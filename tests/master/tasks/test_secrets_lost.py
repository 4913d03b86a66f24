"""A master that comes back without the key of what it had sealed."""

from pathlib import Path

from fleetpulse.master.store.encryption import Encryptor, new_key
from fleetpulse.master.tasks.records import AttemptStatus, TaskStatus
from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.master.fleet import wait_until
from tests.master.tasks.party import Desk, Party, running_party

OTHER = Encryptor([new_key()])
ENV = {"TOKEN": "hunter2"}


def ended(party: Party, task_id: str) -> None:
    wait_until(lambda: party.task(task_id).status.is_terminal)


def test_what_waits_fails_with_the_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    with running_party(tmp_path) as party:
        lost = party.submit(env=ENV)
        open_to_all = party.submit()
    with running_party(tmp_path, encryptor=OTHER) as party:
        ended(party, lost)
        task = party.task(lost)
        assert (task.status, task.outcome.reason) == (TaskStatus.FAILED, "secrets_lost")
        assert "the key that sealed them" in str(task.outcome.error)
        assert [event.kind for event in party.store.details(lost).events] == ["submitted", "failed"]
        desk = party.worker()
        wait_until(lambda: (open_to_all, 1) in desk.starts())
        assert (lost, 1) not in desk.starts()
        fresh = party.submit(env=ENV)
        wait_until(lambda: (fresh, 1) in desk.starts())


def test_what_runs_runs_on_and_is_not_tried_again(tmp_path: Path) -> None:
    with running_party(tmp_path) as party:
        desk = party.worker()
        good, bad = (party.placed(desk, env=ENV, max_retries=3) for _ in range(2))
        desk.run(good)
        desk.run(bad)
    with running_party(tmp_path, encryptor=OTHER) as party:
        desk = Desk(party, "rack-7", 4.0, ())
        desk.register((good, 1), (bad, 1))
        assert {kept.id.task_id for kept in desk.kept} == {good, bad}
        desk.report(good, pb.ATTEMPT_PHASE_COMPLETED, exit_code=0)
        desk.report(bad, pb.ATTEMPT_PHASE_FAILED, exit_code=3, reason="exit_code")
        ended(party, good)
        ended(party, bad)
        assert party.task(good).status is TaskStatus.COMPLETED
        assert (party.task(bad).status, party.task(bad).outcome.reason) == (TaskStatus.FAILED, "secrets_lost")
        assert [attempt.status for attempt in party.attempts(bad)] == [AttemptStatus.FAILED]
        assert party.attempts(bad)[0].outcome.reason == "exit_code"


def test_with_the_key_it_is_as_it_was(tmp_path: Path) -> None:
    with running_party(tmp_path) as party:
        task_id = party.submit(env=ENV)
    with running_party(tmp_path) as party:
        desk = party.worker()
        wait_until(lambda: (task_id, 1) in desk.starts())
        (start,) = [message.start_task for message in desk.sent if message.HasField("start_task")]
        assert dict(start.env) == ENV
