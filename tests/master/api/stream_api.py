"""The stream of telemetry over a live table, and a reader that keeps what it is told as docs/rest.md says."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import falcon

from fleetpulse.master.api import middleware, problems
from fleetpulse.master.api.access import AccessMiddleware
from fleetpulse.master.api.subscribers import Subscribers
from fleetpulse.master.api.telemetry_broadcast import Timing
from fleetpulse.master.api.telemetry_stream import MAX_READERS, TelemetryStreamResource
from fleetpulse.master.api.views import FleetViews, StreamSummaries
from fleetpulse.master.config import LeaseConfig
from fleetpulse.master.telemetry.change_log import MAX_REMOVALS, ChangeLog
from tests.master.api.event_reader import Event, EventReader
from tests.master.fleet import Fleet, running_fleet

PATH = "/telemetry/stream"
BOOT_ID = "5f2c9e01ab34"
FAST = Timing(pause=0.01)


class StreamApi:
    """The resource, what it stands on, and an app that serves it."""

    def __init__(
        self, fleet: Fleet, timing: Timing, max_readers: int, max_removals: int, *guards: AccessMiddleware
    ) -> None:
        self.fleet = fleet
        self.views, self.short_views = FleetViews(), StreamSummaries()
        self.changes = ChangeLog(max_removals)
        for observer in (self.views, self.short_views, self.changes):
            fleet.manager.add_observer(observer)
        self.subscribers = Subscribers(check_seconds=0.02)
        self.stream = TelemetryStreamResource(
            self.changes,
            {"all": self.views.member, "summary": self.short_views.member},
            fleet.instruments.stream,
            self.subscribers.group(max_readers, "read the stream"),
            BOOT_ID,
            timing,
        )
        self.app: falcon.App[Any, Any] = falcon.App(
            middleware=[middleware.Fairness(), *guards, middleware.Compression()]
        )
        problems.install(self.app)
        self.app.add_route(PATH, self.stream)

    def readers(self) -> float | None:
        return self.fleet.metric("stream_readers")

    def event_id(self, revision: int | None = None) -> str:
        return f"{BOOT_ID}-{self.changes.revision if revision is None else revision}"


@contextmanager
def running_stream(
    timing: Timing = FAST,
    *,
    guards: Sequence[AccessMiddleware] = (),
    max_readers: int = MAX_READERS,
    max_removals: int = MAX_REMOVALS,
    lease_config: LeaseConfig = LeaseConfig(),  # noqa: B008 - immutable
) -> Iterator[StreamApi]:
    with running_fleet(lease_config) as fleet:
        yield StreamApi(fleet, timing, max_readers, max_removals, *guards)


class MirrorReader(EventReader):
    """A reader with its map of workers."""

    def __init__(self, address: tuple[str, int], query: str = "", last_id: str | None = None) -> None:
        super().__init__(address, PATH + query, *([] if last_id is None else [f"Last-Event-ID: {last_id}"]))
        self.workers: dict[str, Any] = {}
        self.last_id = last_id
        self.is_complete = False
        self.kinds: list[str] = []

    def learn(self) -> Event:
        """Wait for one event, and do what it says."""
        event = self.next_event()
        assert event is not None, "the stream has ended"
        self.kinds.append(event.kind)
        self.last_id = event.event_id or self.last_id
        if event.kind == "reset":
            self.workers.clear()
        elif event.kind in {"snapshot", "update"}:
            self.workers.update(event.data["workers"])
            self.is_complete = event.data.get("complete", self.is_complete)
        elif event.kind == "removed":
            for worker_id in event.data["worker_ids"]:
                self.workers.pop(worker_id, None)
        return event

    def begin(self) -> dict[str, Any]:
        """Wait for the snapshot."""
        while not self.is_complete:
            self.learn()
        return self.workers

    def reach(self, revision: int) -> dict[str, Any]:
        """Wait until everything up to the revision is known."""
        while self.last_id is None or int(self.last_id.partition("-")[2]) < revision:
            self.learn()
        return self.workers
