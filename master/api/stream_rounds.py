"""The rounds of the stream: what all readers share, and the one greenlet that wakes them when there is news."""

import logging
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import gevent

from fleetpulse.master.api.stream_events import EventEncoder
from fleetpulse.master.telemetry.change_log import ChangeLog, Window

_LOGGER = logging.getLogger(__name__)

WOKEN_IN_A_ROW = 16
"""Readers after which other greenlets have their turn."""

_LOOK_AGAIN_SECONDS = 5.0
"""While nothing changes."""


class Timing(NamedTuple):
    """In seconds."""

    pause: float = 0.5
    """Between two rounds."""

    heartbeat: float = 15.0
    """A reader that got nothing for so long gets a comment."""

    patience: float = 60.0
    """For a reader to take one event."""


class Reader(Protocol):
    """One who takes part in the rounds."""

    @property
    def is_choosy(self) -> bool:
        """Whether it reads some workers only."""
        ...

    def tell(self, revision: int, recent: frozenset[str] | None) -> None:
        """There is news up to the revision, of these workers; ``None``: of any. Does not switch."""
        ...

    def stalled_seconds(self, now: float) -> float:
        """For how long it has been about to take an event."""
        ...

    def cut(self) -> None:
        """End its connection. Does not switch."""
        ...


class Broadcaster:
    """On the hub. While there are readers a greenlet runs; while nothing changes it does nothing but look now and then
    for readers that have stalled.
    """

    def __init__(
        self,
        changes: ChangeLog,
        composers: Iterable[EventEncoder],
        timing: Timing,
        note_cut: Callable[[], None],
    ) -> None:
        self._changes = changes
        self._composers = tuple(composers)
        self._timing = timing
        self._note_cut = note_cut
        self._readers: dict[Reader, None] = {}
        self._windows: dict[int, Window] = {}
        self._everybody: Window | None = None
        self._told = 0
        self._ticker: gevent.Greenlet[..., None] | None = None

    def join(self, reader: Reader) -> None:
        """Tell this one of news from now on."""
        self._readers[reader] = None
        if self._ticker is None:
            self._told = self._changes.revision
            self._ticker = gevent.spawn(self._tick)
            self._ticker.name = "stream-rounds"

    def leave(self, reader: Reader) -> None:
        """It is there no more; said twice, it changes nothing."""
        self._readers.pop(reader, None)
        if not self._readers and self._ticker is not None:
            self._ticker.kill(block=False)
            self._ticker = None
            self._forget()

    def since(self, revision: int) -> Window:
        """What changed of all workers since then, which must be reached; the same for all who ask in one round."""
        window = self._windows.get(revision)
        if window is None:
            window = self._windows[revision] = self._changes.since(revision)
        return window

    def everybody(self) -> Window:
        """All workers as of now; the same for all who ask before anything changes."""
        if self._everybody is None or self._everybody.revision != self._changes.revision:
            self._everybody = self._changes.everybody()
        return self._everybody

    def _tick(self) -> None:
        """Body of the greenlet."""
        look_again_seconds = min(_LOOK_AGAIN_SECONDS, self._timing.patience / 4.0)
        while True:
            news = self._changes.changed.wait(look_again_seconds)
            try:
                self._cut_stalled()
                if news:
                    self._changes.changed.clear()
                    self._tell()
            except Exception:
                _LOGGER.exception("a round of the stream failed")
            if news:
                gevent.sleep(self._timing.pause)

    def _tell(self) -> None:
        self._forget()
        revision, recent = self._changes.revision, self._recent()
        self._told = revision
        for number, reader in enumerate(list(self._readers), start=1):
            reader.tell(revision, recent)
            if number % WOKEN_IN_A_ROW == 0:
                gevent.sleep(0)

    def _recent(self) -> frozenset[str] | None:
        """Who changed or left since the last round; ``None`` when nobody asks, or it is not known."""
        choosy = any(reader.is_choosy for reader in self._readers)
        if not choosy or not self._changes.reaches_back_to(self._told):
            return None
        window = self.since(self._told)
        return frozenset(window.worker_ids) | frozenset(window.removed)

    def _cut_stalled(self) -> None:
        now = time.monotonic()
        for reader in list(self._readers):
            if reader.stalled_seconds(now) > self._timing.patience:
                _LOGGER.warning("a reader of the stream took nothing for %.0f s, and is cut off", self._timing.patience)
                self._note_cut()
                reader.cut()

    def _forget(self) -> None:
        """What the last round shared. A reader that is still at it goes on with the latest."""
        self._windows.clear()
        self._everybody = None
        for composer in self._composers:
            composer.forget()
