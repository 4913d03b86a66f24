"""Whose the attempt was of which a worker spoke and that is not its own now.

One that was its own once is the past, as every outage brings it. One that never was is told to whoever keeps the audit
trail. Only the store knows; so the answer comes after the refusal, and holds up neither the stream nor another's.
"""

import logging
from typing import NamedTuple

import gevent
from gevent.queue import Full, Queue

from fleetpulse.master.errors import StoreUnavailable
from fleetpulse.master.instruments import TaskInstruments
from fleetpulse.master.tasks.ports import TaskStore, WorkerLink
from fleetpulse.master.tasks.wire import AttemptKey

_LOGGER = logging.getLogger(__name__)

MOST_WAITING = 10_000


class ForeignReport(NamedTuple):
    """A worker spoke of this attempt and was refused; ``action`` says what it did."""

    worker_id: str
    key: AttemptKey
    action: str
    link: WorkerLink


class ForeignReports:
    """Takes refused claims on the hub, and has one greenlet look them up, one after the other."""

    def __init__(self, store: TaskStore, instruments: TaskInstruments, most_waiting: int = MOST_WAITING) -> None:
        self._store, self._instruments = store, instruments
        self._waiting: Queue[ForeignReport] = Queue(most_waiting)
        self._greenlet: gevent.Greenlet[..., None] | None = None

    def start(self) -> None:
        """Begin to look up."""
        self._greenlet = gevent.spawn(self._run)
        self._greenlet.name = "task-claims"

    def stop(self) -> None:
        """Look nothing up any more."""
        if self._greenlet is not None:
            self._greenlet.kill()

    def health_error(self) -> str | None:
        """Why nothing is looked up, or ``None``."""
        return "nobody looks up claims" if self._greenlet is None or self._greenlet.dead else None

    def judge(self, claim: ForeignReport) -> None:
        """Have it looked up. Does not wait; what cannot be looked up is told as such."""
        try:
            self._waiting.put_nowait(claim)
        except Full:
            self._tell(claim, "too many claims wait to be looked up")

    def _run(self) -> None:
        while True:
            claim = self._waiting.get()
            try:
                why = self._objection(claim)
            except Exception:
                _LOGGER.exception("a claim could not be looked up")
                why = "it could not be looked up"
            if why is not None:
                self._tell(claim, why)

    def _objection(self, claim: ForeignReport) -> str | None:
        """Why the attempt was never the worker's; ``None`` when it was."""
        task_id, number = claim.key
        try:
            owner = self._store.assigned_to(task_id, number)
        except StoreUnavailable:
            return "the store does not answer, so it could not be looked up"
        if owner is None:
            return "there is no such attempt"
        return None if owner == claim.worker_id else f"it is of worker {owner}"

    def _tell(self, claim: ForeignReport, why: str) -> None:
        self._instruments.reports_foreign.inc()
        task_id, number = claim.key
        claim.link.accuse(claim.action, f"{task_id}/{number}", why)
