"""worker.simulation.run"""

from fleetpulse.worker.simulation.run import describe_status
from fleetpulse.worker.simulation.status import FleetStatus, Waiting


def test_status_of_a_connected_fleet_is_one_short_line() -> None:
    assert describe_status(FleetStatus(10_000, 10_000, 123_456)) == (
        "10,000 of 10,000 workers connected, 123,456 heartbeats sent"
    )


def test_status_tells_how_many_workers_wait_for_what() -> None:
    waiting = (Waiting(12, "UNAVAILABLE", "connection refused"), Waiting(3, "not started"))
    assert describe_status(FleetStatus(20, 5, 7, waiting)) == (
        "5 of 20 workers connected, 7 heartbeats sent, 15 waiting: 12x UNAVAILABLE (connection refused), 3x not started"
    )
