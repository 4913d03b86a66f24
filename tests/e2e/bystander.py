"""A worker that beats while others misbehave, to see that it takes no harm."""

from typing import Any

from tests.e2e.masters import Master
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually


class Bystander:
    """One simulated worker and what the master knows of it."""

    worker_id = "bystander-1"

    def __init__(self, processes: Processes, master: Master) -> None:
        self._master = master
        self._process = processes.simulate(master.target, 1, "--prefix", "bystander")
        eventually(lambda: master.workers().get(self.worker_id) and self._received())

    def assert_unharmed(self) -> None:
        """It beats on, on the stream that it had, and the master heard everything that it said."""
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
