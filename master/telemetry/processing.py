"""Greenlets for the workers that have something to process: a worker has one to itself for as long as that takes.

Who waits in between takes no greenlet: one takes 8 KB, and nearly every worker waits nearly all the time.
"""

from collections import deque
from collections.abc import Callable

import gevent
from gevent.lock import Semaphore

from master.telemetry.row import WorkerRow

MOST_RESTING = 8
"""Greenlets that are kept for the next workers; there are more only while that many workers wait for something."""

_ROWS_IN_A_ROW = 8
"""After which other greenlets have their turn."""


class Processing:
    """Calls ``process`` with rows, each in a greenlet of the name ``telemetry-`` and the worker's id. On the hub.

    ``process`` handles all that a row holds. It may wait: then its own worker waits, and no other one.
    """

    def __init__(self, process: Callable[[WorkerRow], None]) -> None:
        self._process = process
        self._due: deque[WorkerRow] = deque()
        self._greenlets: set[gevent.Greenlet[[], None]] = set()
        self._resting = 0
        self._bell = Semaphore(0)
        self._somebody_comes = False
        self._is_pausing = False
        self._is_closed = False

    def add(self, row: WorkerRow) -> None:
        """There is something to process. Neither waits nor switches. Once closed, nothing comes of it."""
        if not row.is_due and not self._is_closed:
            row.is_due = True
            self._due.append(row)
            self._call()

    def close(self, timeout_seconds: float) -> None:
        """Wait until all is processed, and every greenlet has ended; what takes longer is killed."""
        self._is_closed = True
        for _ in range(self._resting):
            self._bell.release()
        with gevent.Timeout(timeout_seconds, False):  # type: ignore[arg-type]  # False: end quietly
            # More may come meanwhile, for the rows behind one that waits.
            while self._greenlets:
                gevent.joinall(list(self._greenlets))
        gevent.killall(list(self._greenlets), timeout=timeout_seconds)

    def _call(self) -> None:
        """Have a greenlet come, unless one does anyway."""
        if self._somebody_comes or self._is_pausing:
            return
        self._somebody_comes = True
        if self._resting:
            self._bell.release()
        else:
            greenlet = gevent.spawn(self._run)
            self._greenlets.add(greenlet)
            greenlet.rawlink(self._greenlets.discard)

    def _run(self) -> None:
        try:
            self._work()
        except BaseException:
            # What a callback has left behind, a timeout that it did not cancel for one, ends this greenlet alone.
            self._somebody_comes = False
            if self._due and not self._is_closed:
                self._call()
            raise

    def _work(self) -> None:
        current = gevent.getcurrent()
        assert isinstance(current, gevent.Greenlet)  # nosec B101 # for the type checker
        while True:
            self._somebody_comes = False
            in_a_row = 0
            # Whoever pauses goes on with what is due.
            while self._due and not self._is_pausing:
                self._take(current)
                in_a_row += 1
                if in_a_row % _ROWS_IN_A_ROW == 0 and self._due and not self._is_pausing:
                    self._pause()
            if self._is_closed or self._resting >= MOST_RESTING:
                return
            current.name = "telemetry-resting"
            self._rest()

    def _take(self, current: "gevent.Greenlet[..., None]") -> None:
        row = self._due.popleft()
        if self._due:
            # This one may wait, and the others must not.
            self._call()
        current.name = f"telemetry-{row.telemetry.worker_id}"
        try:
            self._process(row)
        finally:
            row.is_due = False

    def _pause(self) -> None:
        self._is_pausing = True
        try:
            gevent.sleep(0)
        finally:
            self._is_pausing = False

    def _rest(self) -> None:
        self._resting += 1
        try:
            self._bell.acquire()
        finally:
            self._resting -= 1
