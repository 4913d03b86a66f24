"""master.tasks.attempt_reports: the check of who owned an attempt. test_service has the reports themselves."""

from pathlib import Path

import gevent
from prometheus_client import CollectorRegistry

from fleetpulse.master.instruments import TaskInstruments
from fleetpulse.master.tasks.attempt_reports import ForeignReport, ForeignReports
from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.master.fleet import wait_until
from tests.master.tasks.running import running_store


class Link:
    """Keeps the violations of its worker."""

    def __init__(self) -> None:
        self.violations: list[tuple[str, str, str]] = []

    def send(self, message: pb.MasterMessage) -> None:
        raise AssertionError(f"nothing is to be sent, and {message} was")

    def report_violation(self, action: str, target: str, reason: str) -> None:
        self.violations.append((action, target, reason))


def test_report_that_cannot_be_looked_up_is_a_violation(tmp_path: Path) -> None:
    link = Link()
    with running_store(tmp_path) as store:
        checks = ForeignReports(store, TaskInstruments(CollectorRegistry()), max_waiting=2)
        for number in (1, 2, 3):
            checks.check(ForeignReport("rack-7", ("task-1", number), "log", link))
        assert link.violations == [("log", "task-1/3", "too many reports wait to be looked up")]
        greenlet = gevent.spawn(checks.run)
        wait_until(lambda: len(link.violations) == 3)
        assert link.violations[1:] == [("log", f"task-1/{number}", "there is no such attempt") for number in (1, 2)]
    checks.check(ForeignReport("rack-7", ("task-1", 4), "report", link))
    wait_until(lambda: len(link.violations) == 4)
    assert link.violations[3][2] == "the store does not answer, so it could not be looked up"
    greenlet.kill()
