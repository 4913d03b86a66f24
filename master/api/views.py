"""The JSON of every worker: the record of each is kept ready, so an answer about the fleet names them in a row."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import msgspec

from fleetpulse.master.api.answers import encoded
from fleetpulse.master.api.worker_answers import (
    StreamSummary,
    WorkerDetails,
    WorkerMetrics,
    WorkerRecord,
    WorkerSummary,
)
from fleetpulse.master.errors import UnknownWorker
from fleetpulse.master.hub_queue import give_way
from fleetpulse.master.telemetry.lazy_view import LazyView, ReadRhythm
from fleetpulse.master.telemetry.records import WorkerTelemetry

WORKERS_IN_A_ROW = 256
"""Gathered, after which other greenlets have their turn."""

Pieces = list[bytes]
"""A large answer, not joined: a copy of all takes fresh pages of memory each time, most of the answer's cost."""

_HOLE = b"\xff"
"""In details that are kept, where the heartbeat counts and the record go. UTF-8 has no such byte."""


class FleetViews(LazyView):
    """What REST shows of the live table. The views of one worker raise ``UnknownWorker``.

    A worker's record and summary are kept as members of the objects that hold all of them. The metrics of a worker are
    encoded on request; of its details, all is kept but the parts that change with every heartbeat.
    """

    def __init__(self) -> None:
        super().__init__()
        self._latest: dict[str, WorkerTelemetry] = {}
        self._records: dict[str, bytes] = {}
        self._summaries: dict[str, bytes] = {}
        self._details: dict[str, tuple[tuple[object, ...], list[bytes]]] = {}
        self._detail_members: dict[str, bytes] = {}
        """Details as they are now. A worker has none after a change until somebody asks, or when nobody does."""

        self._detail_reads = ReadRhythm()

    def render(self, telemetry: WorkerTelemetry) -> None:
        """Render the worker's record and its summary."""
        worker_id = telemetry.worker_id
        self._latest[worker_id] = telemetry
        self._records[worker_id] = _member(worker_id, WorkerRecord.of(telemetry))
        self._summaries[worker_id] = _member(worker_id, WorkerSummary.of(telemetry))
        if self._detail_reads.in_demand(self._clock.monotonic()):
            self._detail_members[worker_id] = self._render_details(telemetry)
        else:
            self._detail_members.pop(worker_id, None)

    def remove(self, worker_id: str) -> None:
        """Drop the worker's views."""
        views: tuple[dict[str, Any], ...] = (
            self._latest,
            self._records,
            self._summaries,
            self._details,
            self._detail_members,
        )
        for view in views:
            view.pop(worker_id, None)

    def record(self, worker_id: str) -> bytes:
        """One worker's record."""
        self._worker(worker_id)
        return bytes(self._record(worker_id))

    def member(self, worker_id: str) -> bytes | None:
        """The same as ``"worker-1":{…}``; ``None`` for a worker that is not there."""
        self.catch_up_with(worker_id)
        return self._records.get(worker_id)

    def metrics(self, worker_id: str, *, per_core: bool = False) -> bytes:
        """One worker's resource readings."""
        telemetry = self._worker(worker_id)
        return encoded(WorkerMetrics.with_cores(telemetry) if per_core else WorkerMetrics.of(telemetry))

    def details(self, worker_id: str) -> bytes:
        """One worker's identity and capacity, with its record."""
        return self._render_details(self._worker(worker_id))

    def all_records(self) -> Pieces:
        """Map of worker_id to record."""
        self.catch_up()
        return _enclosed(b"{", _members(self._records), b"}")

    def all_summaries(self) -> Pieces:
        """Map of worker_id to summary."""
        self.catch_up()
        return _enclosed(b"{", _members(self._summaries), b"}")

    def all_details(self) -> Pieces:
        """Array of details."""
        self._detail_reads.note_read(self._clock.monotonic())
        self.catch_up()
        return _enclosed(b"[", self._all_detail_members(), b"]")

    def _all_detail_members(self) -> Iterator[list[bytes]]:
        for worker_ids in _in_rows(self._latest):
            yield [self._detail_member(worker_id) for worker_id in worker_ids if worker_id in self._latest]

    def _detail_member(self, worker_id: str) -> bytes:
        member = self._detail_members.get(worker_id)
        if member is None:
            member = self._detail_members[worker_id] = self._render_details(self._latest[worker_id])
        return member

    def _render_details(self, telemetry: WorkerTelemetry) -> bytes:
        # Mostly the same objects as last time, and then equal by identity.
        key = (
            *(telemetry.registration, telemetry.allocation, telemetry.task_support),
            *(telemetry.is_active, telemetry.boot_time),
        )
        known, parts = self._details.get(telemetry.worker_id, ((), []))
        if known != key:
            hole = msgspec.Raw(_HOLE)
            parts = encoded(WorkerDetails.of(telemetry, heartbeats=hole, record=hole)).split(_HOLE)
            self._details[telemetry.worker_id] = key, parts
        before, between, after = parts
        return b"".join((before, encoded(telemetry.counts), between, self._record(telemetry.worker_id), after))

    def _record(self, worker_id: str) -> memoryview:
        """Without the name of the member and the colon."""
        return memoryview(self._records[worker_id])[len(worker_id) + 3 :]

    def _worker(self, worker_id: str) -> WorkerTelemetry:
        self.catch_up_with(worker_id)
        try:
            return self._latest[worker_id]
        except KeyError:
            raise UnknownWorker(worker_id) from None


class StreamSummaries(LazyView):
    """The summary of each worker for the stream. Rendered on request only."""

    def __init__(self) -> None:
        super().__init__()
        self._members: dict[str, bytes] = {}

    def render(self, telemetry: WorkerTelemetry) -> None:
        """Render the worker's summary."""
        self._members[telemetry.worker_id] = _member(telemetry.worker_id, StreamSummary.of(telemetry))

    def remove(self, worker_id: str) -> None:
        """Drop the worker's summary."""
        self._members.pop(worker_id, None)

    def member(self, worker_id: str) -> bytes | None:
        """``"worker-1":{…}`` as it is now; ``None`` for a worker that is not there."""
        self.catch_up_with(worker_id)
        return self._members.get(worker_id)


def _member(worker_id: str, value: msgspec.Struct) -> bytes:
    # A worker id holds no character that JSON escapes (proto.rules), so it needs no encoder.
    return b'"%b":%b' % (worker_id.encode(), encoded(value))


def _in_rows(workers: Iterable[str]) -> Iterator[list[str]]:
    """The workers of now, some at a time. Lets other greenlets run in between, so one may leave or change meanwhile."""
    now = list(workers)
    for start in range(0, len(now), WORKERS_IN_A_ROW):
        if start:
            give_way()
        yield now[start : start + WORKERS_IN_A_ROW]


def _members(members: dict[str, bytes]) -> Iterator[list[bytes]]:
    for worker_ids in _in_rows(members):
        yield [members[worker_id] for worker_id in worker_ids if worker_id in members]


def _enclosed(opening: bytes, rows: Iterable[list[bytes]], closing: bytes) -> Pieces:
    members = list(chain.from_iterable(rows))
    if not members:
        return [opening, closing]
    pieces = [b","] * (2 * len(members) + 1)
    pieces[1::2] = members
    pieces[0], pieces[-1] = opening, closing
    return pieces
