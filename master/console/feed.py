"""The fleet as it changes: from the master's stream of telemetry, or by asking again and again where there is none."""

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fleetpulse.master.console.answers import no_master
from fleetpulse.master.console.client import MasterClient
from fleetpulse.master.console.errors import ConsoleError, UnknownId
from fleetpulse.master.console.sse import Event, follow

Worker = Mapping[str, Any]
"""The short form of a record, as the master's stream has it with ``fields=summary``."""

Fleet = dict[str, Worker]

STREAM = "/telemetry/stream"
POLL_SECONDS = 2.0
_END_SECONDS = 2.0


class FleetFeed:
    """Hears the fleet in a thread of its own, until ``stop``."""

    def __init__(
        self,
        client: MasterClient,
        *,
        on_fleet: Callable[[Fleet], None],
        on_trouble: Callable[[str], None],
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """Both are called from that thread: with the whole fleet after each change, and with what went wrong.

        A master that cannot be reached any more is tried for ever.
        """
        self._client = client
        self._on_fleet = on_fleet
        self._tell_trouble = on_trouble
        self._poll_seconds = poll_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fleet feed", daemon=True)
        self.error: ConsoleError | None = None
        """Why it ended, if it ended by itself."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for the end, but not long: a master that hangs must not hold whoever leaves."""
        self._stopping.set()
        self._client.interrupt()
        self._thread.join(_END_SECONDS)
        self._client.close()

    @property
    def is_alive(self) -> bool:
        """Whether there may be news."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._hear()
        except _Stopped:
            return
        except ConsoleError as error:
            self.error = error
            self._on_trouble(error.message)

    def _hear(self) -> None:
        try:
            for fleet in streamed(self._client, note=self._on_trouble, pause=self._pause):
                self._pause(0.0)
                self._on_fleet(fleet)
        except UnknownId:
            # A master without the stream takes its path for the id of a worker.
            for fleet in self._polled():
                self._on_fleet(fleet)

    def _polled(self) -> Iterator[Fleet]:
        has_heard = False
        while True:
            try:
                yield polled(self._client)
                has_heard = True
            except ConsoleError as error:
                if not has_heard:
                    raise
                self._on_trouble(error.message)
            self._pause(self._poll_seconds)

    def _on_trouble(self, trouble: str) -> None:
        if not self._stopping.is_set():
            self._tell_trouble(trouble)

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise _Stopped


class _Stopped(Exception):
    """Somebody said stop."""


def streamed(client: MasterClient, *, note: Callable[[str], None], pause: Callable[[float], object]) -> Iterator[Fleet]:
    """The whole fleet after each event of the stream. Raises ``UnknownId`` where the master has no stream."""
    fleet: Fleet = {}
    is_whole = False
    events = follow(
        client, STREAM, {"fields": "summary"}, is_last=lambda _: False, note=note, sleep=pause,
        patience_seconds=float("inf"),
    )  # fmt: skip
    for event in events:
        try:
            fleet, is_whole = applied(fleet, event, is_whole=is_whole)
        except (AttributeError, KeyError, TypeError):
            raise no_master(client.url, "its stream of telemetry is none of a master's") from None
        if is_whole:
            yield fleet


def applied(fleet: Fleet, event: Event, *, is_whole: bool) -> tuple[Fleet, bool]:
    """The fleet after an event, and whether that is all of it."""
    if event.kind == "reset":
        return {}, False
    if event.kind == "snapshot":
        return {**fleet, **event.data["workers"]}, bool(event.data["complete"])
    if event.kind == "update":
        return {**fleet, **event.data["workers"]}, is_whole
    if event.kind == "removed":
        gone = frozenset(event.data["worker_ids"])
        return {worker_id: worker for worker_id, worker in fleet.items() if worker_id not in gone}, is_whole
    return fleet, is_whole


def polled(client: MasterClient) -> Fleet:
    """The whole fleet of now."""
    return {str(details.get("worker_id")): summary(details) for details in client.get_list("/api/workers")}


def summary(details: Mapping[str, Any]) -> Worker:
    """The short form of an element of ``/api/workers``; what that does not tell is ``None``."""
    record, tasks = details.get("telemetry") or {}, details.get("tasks") or {}
    memory, load, running = record.get("memory") or {}, record.get("load") or {}, record.get("running_tasks")
    return {
        **{field: details.get(field) for field in ("worker_id", "is_active", "hostname")},
        **{field: record.get(field) for field in ("last_update", "cpu_usage", "memory_usage", "gpu_usage")},
        "memory_used_bytes": memory.get("used_bytes"),
        "memory_size_bytes": memory.get("size_bytes"),
        "load1": load.get("load1"),
        "running_tasks_count": None if running is None else len(running),
        "accepts_tasks": tasks.get("accepted"),
        "draining": tasks.get("draining"),
    }
