"""A few threads that read, so that a slow answer keeps neither the hub nor the writer from anything."""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from fleetpulse.master.errors import StoreUnavailable
from fleetpulse.master.mailbox import HubQueue
from fleetpulse.master.store.answer import Answer, Call
from fleetpulse.master.store.failures import in_words

Found = TypeVar("Found")


@dataclass(slots=True, eq=False)
class _Job:
    question: Callable[[Connection], Any]
    answer: Answer
    is_wanted: bool = field(default=True)


class Readers:
    """Made, asked and stopped on the hub."""

    def __init__(self, engine: Engine, mailbox: HubQueue, threads: int) -> None:
        self._engine, self._mailbox = engine, mailbox
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"store-reader-{number}", daemon=True) for number in range(threads)
        ]
        self._ended = [Answer() for _ in self._threads]
        self._is_open = False

    def start(self) -> None:
        self._is_open = True
        for thread in self._threads:
            thread.start()

    def ask(self, question: Callable[[Connection], Found], timeout_seconds: float) -> Found:
        """Wait for the answer. Raise ``StoreUnavailable`` when none comes in time."""
        if not self._is_open:
            raise StoreUnavailable("the store is closed")
        job = _Job(question, Answer())
        self._jobs.put(job)
        try:
            if not job.answer.wait(timeout_seconds):
                raise StoreUnavailable(f"the database has not answered for {timeout_seconds:g} s")
            found: Found = job.answer.result()
            return found
        finally:
            job.is_wanted = False

    def stop(self, timeout_seconds: float) -> None:
        """End the threads, when they have answered what was asked."""
        if self._is_open:
            self._is_open = False
            for _ in self._threads:
                self._jobs.put(None)
            for ended in self._ended:
                ended.wait(timeout_seconds)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            if job.is_wanted:
                self._mailbox.post([self._answer(job)])
        self._mailbox.post([self._ended.pop().value(None)])

    def _answer(self, job: _Job) -> Call:
        try:
            with self._engine.connect() as connection:
                return job.answer.value(job.question(connection))
        except SQLAlchemyError as error:
            unavailable = StoreUnavailable(f"the database cannot be read: {in_words(error)}")
            unavailable.__cause__ = error
            return job.answer.error(unavailable)
        except Exception as error:  # noqa: BLE001 - who asked hears it
            return job.answer.error(error)
