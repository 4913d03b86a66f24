"""Accepts connections, and turns clients that come too often away before anything is spent on them."""

import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import gevent.socket
from gevent.pool import Pool
from gevent.server import StreamServer

from fleetpulse.master.edge.door import ConnectionLimiter
from fleetpulse.master.edge.refusals import Refusal

TURNED_AWAY_A_TURN = 50
"""Then those have their turn who are inside. Each costs some 20 microseconds."""


class AcceptRateLimiter(StreamServer):
    """All on the hub, in its loop: nothing here waits. Whoever is let in has a greenlet of the pool.

    A client that opens thousands of connections at once would else have everybody wait in the system's queue until
    each of them had had a greenlet, only to be told that it came too often.
    """

    def __init__(
        self, listener: Any, handle: Callable[..., None], pool: Pool, door: ConnectionLimiter, *, speaks_http: bool
    ) -> None:
        """``handle`` is given the socket and the address; ``speaks_http``: a client may be answered without TLS."""
        super().__init__(listener, handle, spawn=pool)
        self._door = door
        self._speaks_http = speaks_http
        self._turn, self._left = -1, 0

    def do_read(self) -> Any:  # a socket of gevent's and its address; the stub forgets that there may be none
        """The next who is let in, and its address; ``None``: nobody in this turn. Called by gevent."""
        listener: Any = self.socket
        if self._turn != self.loop.iteration:
            self._turn, self._left = self.loop.iteration, TURNED_AWAY_A_TURN
        while self._left:
            try:
                descriptor, address = listener._accept()  # noqa: SLF001 - as gevent's own
            except BlockingIOError:
                return None
            refusal = self._door.turns_away(address[0])
            if refusal is None:
                return gevent.socket.socket(listener.family, listener.type, listener.proto, descriptor), address
            self._left -= 1
            self._turn_away(descriptor, refusal)
        return None

    def _turn_away(self, descriptor: int, refusal: Refusal) -> None:
        """Whether the answer arrives or not."""
        try:
            if self._speaks_http:
                with suppress(OSError):
                    os.write(descriptor, _answer(refusal))  # does not wait: nothing else was sent yet
        finally:
            os.close(descriptor)


@cache
def _answer(refusal: Refusal) -> bytes:
    return refusal.answer(closes=True)
