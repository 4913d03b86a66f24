"""A well-behaved worker, which must not notice what other clients do."""

from typing import Any

from tests.e2e.masters import Master
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually


class HealthyWorker:
    """One simulated worker and its record on the master."""

    worker_id = "healthy-1"

    def __init__(self, processes: Processes, master: Master) -> None:
        self._master = master
        self._process = processes.simulate(master.target, 1, "--prefix", "healthy")
        eventually(lambda: master.workers().get(self.worker_id) and self._received())

    def assert_unharmed(self) -> None:
        """Asserts that its stream is still open and no heartbeat was lost."""
        before = self._details()
        eventually(lambda: self._received() > before["heartbeats"]["received"] + 1)
        details = self._details()
        assert details["is_active"]
        assert (details["heartbeats"]["dropped"], details["heartbeats"]["missed"]) == (0, 0)
        assert "no stream" not in self._process.err
        assert self._process.is_running

    def _received(self) -> int:
        received = self._details()["heartbeats"]["received"]
        assert isinstance(received, int)
        return received

    def _details(self) -> Any:
        return self._master.json(f"/api/workers/{self.worker_id}")
