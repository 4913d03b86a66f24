"""master.tasks.claims"""

from pathlib import Path

from prometheus_client import CollectorRegistry

from fleetpulse.master.instruments import TaskInstruments
from fleetpulse.master.tasks.claims import ForeignReport, ForeignReports
from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.master.fleet import wait_until
from tests.master.tasks.running import running_store


class Link:
    """Keeps what its worker is accused of."""

    def __init__(self) -> None:
        self.accusations: list[tuple[str, str, str]] = []

    def send(self, message: pb.MasterMessage) -> None:
        raise AssertionError(f"nothing is to be sent, and {message} was")

    def accuse(self, action: str, target: str, why: str) -> None:
        self.accusations.append((action, target, why))


def test_what_cannot_be_looked_up_is_told_as_such(tmp_path: Path) -> None:
    link = Link()
    with running_store(tmp_path) as store:
        claims = ForeignReports(store, TaskInstruments(CollectorRegistry()), most_waiting=2)
        assert claims.health_error() is not None
        for number in (1, 2, 3):
            claims.judge(ForeignReport("rack-7", ("task-1", number), "log", link))
        assert link.accusations == [("log", "task-1/3", "too many claims wait to be looked up")]
        claims.start()
        assert claims.health_error() is None
        wait_until(lambda: len(link.accusations) == 3)
        assert link.accusations[1:] == [("log", f"task-1/{number}", "there is no such attempt") for number in (1, 2)]
    claims.judge(ForeignReport("rack-7", ("task-1", 4), "report", link))
    wait_until(lambda: len(link.accusations) == 4)
    assert link.accusations[3][2] == "the store does not answer, so it could not be looked up"
    claims.stop()
