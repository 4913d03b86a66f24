"""The Falcon app of a master with a telemetry manager, without a network."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from falcon.testing import TestClient

from fleetpulse.master.api.subscribers import Subscribers
from fleetpulse.master.api.views import FleetViews
from fleetpulse.master.api.workers import HealthResource
from fleetpulse.master.app import HttpServices, create_wsgi
from fleetpulse.master.config import LeaseConfig
from fleetpulse.master.metrics.exposition import FleetExposition
from fleetpulse.master.tasks.service import TaskService
from tests.master.audit.trails import unwritten_trail
from tests.master.fleet import Fleet, running_fleet
from tests.master.guards import open_access
from tests.master.history.memory_store import history_of
from tests.master.tasks.running import running_tasks


class Web:
    """``health_errors`` has the error of each unhealthy part of the master."""

    def __init__(self, fleet: Fleet, tasks: TaskService, views: FleetViews, exposition: FleetExposition) -> None:
        self.fleet = fleet
        self.tasks = tasks
        self.health_errors: dict[str, str | None] = {"telemetry": None, "grpc": None}
        checks = {part: lambda part=part: self.health_errors[part] for part in self.health_errors}
        self.overload: str | None = None
        health = HealthResource(checks, "1.2.3", {"grpc": lambda: self.overload})
        self.app = create_wsgi(
            HttpServices(
                fleet.manager, tasks, history_of(fleet), unwritten_trail(fleet.instruments), open_access(), views,
                exposition, fleet.instruments, health, Subscribers(),
            )
        )  # fmt: skip
        self.client = TestClient(self.app)

    def json(self, path: str) -> Any:
        """The JSON of a GET, which must succeed."""
        result = self.client.simulate_get(path)
        assert result.status_code == 200, result.text
        return result.json


@contextmanager
def running_web(lease_config: LeaseConfig = LeaseConfig()) -> Iterator[Web]:  # noqa: B008 - immutable
    views, exposition = FleetViews(), FleetExposition()
    with running_fleet(lease_config, views, exposition) as fleet, running_tasks(fleet) as tasks:
        yield Web(fleet, tasks, views, exposition)
