"""Server-sent events of the master, with reconnects; and the fleet as the telemetry stream tells it.

The format: https://html.spec.whatwg.org/multipage/server-sent-events.html.
"""

import http
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from fleetpulse.master.console.client import MasterClient, Query, not_a_master
from fleetpulse.master.console.errors import ConsoleError, PermanentError, UnknownId, Unreachable

POLL_SECONDS = 2.0
_PAUSES_SECONDS = (0.5, 1.0, 2.0, 5.0)
_RETRY_SECONDS = 60.0
_STOP_SECONDS = 2.0
_MAX_LINE_BYTES = 64 * 1024 * 1024

WorkerSummary = Mapping[str, Any]
"""A worker as the telemetry stream has it with ``fields=summary``."""

FleetSnapshot = dict[str, WorkerSummary]
"""All workers, by id."""


class StreamEvent(NamedTuple):
    """One event. ``data`` is parsed JSON; ``id`` is the last id that the stream had."""

    kind: str
    data: Any
    id: str | None


def parse_events(chunks: Iterable[bytes]) -> Iterator[StreamEvent]:
    """Yields the events of a stream that comes in chunks of any size. Raises ``ValueError`` for another format."""
    kind, data, last_id = "message", list[str](), None
    for line in _lines(chunks):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield StreamEvent(kind, json.loads("\n".join(data)), last_id)
            kind, data = "message", []
        elif name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            last_id = value


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    buffer = b""
    for chunk in chunks:
        *complete, buffer = (buffer + chunk).split(b"\n")
        for line in complete:
            yield line.removesuffix(b"\r").decode(errors="replace")
        if len(buffer) > _MAX_LINE_BYTES:
            raise ValueError("a line without end")


class ReconnectPolicy:
    """Pauses between tries. Announces the first retry, and gives up after ``seconds`` without success."""

    def __init__(
        self,
        note: Callable[[str], None],
        sleep: Callable[[float], object] = time.sleep,
        seconds: float = _RETRY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._note, self._sleep, self._seconds, self._clock = note, sleep, seconds, clock
        self._failures, self._since = 0, clock()

    def reset(self) -> None:
        """The master answered."""
        self._failures = 0

    def wait(self, reason: ConsoleError) -> None:
        """Pauses before the next try. Raises ``reason`` when the time is up."""
        if self._failures == 0:
            self._since = self._clock()
            self._note(f"{reason.message.partition('. ')[0]}; trying again")
        elif self._clock() - self._since > self._seconds:
            raise reason
        self._sleep(_PAUSES_SECONDS[min(self._failures, len(_PAUSES_SECONDS) - 1)])
        self._failures += 1


def follow_stream(
    client: MasterClient, path: str, query: Query, policy: ReconnectPolicy, *, last: str | None = None
) -> Iterator[StreamEvent]:
    """Yields the events up to the first of kind ``last``. A broken connection resumes where it broke.

    Raises the first answer's error at once, later errors as ``policy`` decides.
    """
    last_id: str | None = None
    is_connected = False
    while True:
        try:
            for event in _read_stream(client, path, query, last_id):
                is_connected, last_id = True, event.id or last_id
                policy.reset()
                yield event
                if event.kind == last:
                    return
            reason: ConsoleError = Unreachable(f"the master at {client.url} ended the stream")
        except (UnknownId, PermanentError):
            raise
        except ConsoleError as error:
            if not is_connected:
                raise
            reason = error
        policy.wait(reason)


def _read_stream(client: MasterClient, path: str, query: Query, last_id: str | None) -> Iterator[StreamEvent]:
    headers = {"Accept": "text/event-stream"} | ({} if last_id is None else {"Last-Event-ID": last_id})
    with client.stream(path, query, headers) as response:
        if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
            raise not_a_master(client.url, "its answer is not an event stream")
        try:
            for event in parse_events(client.chunks(response)):
                if event.kind == "problem":
                    raise _problem(event.data)
                yield event
        except ValueError:
            raise not_a_master(client.url, "its event stream cannot be parsed") from None


def _problem(data: Any) -> ConsoleError:
    known = data if isinstance(data, dict) else {}
    detail, status = str(known.get("detail", "the master cannot go on")), known.get("status", 500)
    is_permanent = isinstance(status, int) and status < http.HTTPStatus.INTERNAL_SERVER_ERROR
    return PermanentError(detail) if is_permanent else ConsoleError(detail)


class FleetWatcher:
    """Watches the fleet in its own thread: the telemetry stream, or polling where the master has no stream."""

    def __init__(
        self,
        client: MasterClient,
        *,
        on_fleet: Callable[[FleetSnapshot], None],
        on_error: Callable[[str], None],
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """Both callbacks run in the watcher's thread: with the fleet after each change, and with what went wrong.

        Retries for ever once the master has answered.
        """
        self._client = client
        self._on_fleet = on_fleet
        self._on_error = on_error
        self._poll_seconds = poll_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fleet watcher", daemon=True)
        self.error: ConsoleError | None = None
        """Why the watcher ended by itself."""

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stops the thread. Waits two seconds at most, as the master may hang."""
        self._stopping.set()
        self._client.interrupt()
        self._thread.join(_STOP_SECONDS)
        self._client.close()

    def _run(self) -> None:
        try:
            self._watch()
        except _Stopped:
            return
        except ConsoleError as error:
            self.error = error
            self._report(error.message)

    def _watch(self) -> None:
        policy = ReconnectPolicy(self._report, self._pause, float("inf"))
        fleet, is_complete = FleetSnapshot(), False
        try:
            for event in follow_stream(self._client, "/telemetry/stream", {"fields": "summary"}, policy):
                try:
                    fleet, is_complete = apply_event(fleet, event, is_complete=is_complete)
                except (AttributeError, KeyError, TypeError):
                    reason = "its telemetry stream does not have the shape of a master's"
                    raise not_a_master(self._client.url, reason) from None
                self._pause(0.0)
                if is_complete:
                    self._on_fleet(fleet)
        except UnknownId:
            # A master without the stream takes its path for a worker's id.
            self._poll()

    def _poll(self) -> None:
        is_connected = False
        while True:
            try:
                self._on_fleet(poll_fleet(self._client))
                is_connected = True
            except ConsoleError as error:
                if not is_connected:
                    raise
                self._report(error.message)
            self._pause(self._poll_seconds)

    def _report(self, message: str) -> None:
        if not self._stopping.is_set():
            self._on_error(message)

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise _Stopped


class _Stopped(Exception):
    """``stop`` was called."""


def apply_event(fleet: FleetSnapshot, event: StreamEvent, *, is_complete: bool) -> tuple[FleetSnapshot, bool]:
    """Returns the fleet after an event, and whether it is complete."""
    if event.kind == "reset":
        return {}, False
    if event.kind == "snapshot":
        return {**fleet, **event.data["workers"]}, bool(event.data["complete"])
    if event.kind == "update":
        return {**fleet, **event.data["workers"]}, is_complete
    if event.kind == "removed":
        removed = frozenset(event.data["worker_ids"])
        return {worker_id: worker for worker_id, worker in fleet.items() if worker_id not in removed}, is_complete
    return fleet, is_complete


def poll_fleet(client: MasterClient) -> FleetSnapshot:
    """Returns the fleet of now."""
    return {str(worker.get("worker_id")): _summary(worker) for worker in client.get_list("/api/workers")}


def _summary(worker: Mapping[str, Any]) -> WorkerSummary:
    """The summary of an element of ``/api/workers``. Unknown fields are ``None``."""
    record, tasks = worker.get("telemetry") or {}, worker.get("tasks") or {}
    memory, load, running = record.get("memory") or {}, record.get("load") or {}, record.get("running_tasks")
    return {
        **{field: worker.get(field) for field in ("worker_id", "is_active", "hostname")},
        **{field: record.get(field) for field in ("last_update", "cpu_usage", "memory_usage", "gpu_usage")},
        "memory_used_bytes": memory.get("used_bytes"),
        "memory_size_bytes": memory.get("size_bytes"),
        "load1": load.get("load1"),
        "running_tasks_count": None if running is None else len(running),
        "accepts_tasks": tasks.get("accepted"),
        "draining": tasks.get("draining"),
    }
