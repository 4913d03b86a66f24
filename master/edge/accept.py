"""Accepts connections on the HTTP port, within the clients' rates."""

import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

from gevent.pool import Pool
from gevent.server import StreamServer

from fleetpulse.master.edge.connections import ConnectionLimiter
from fleetpulse.master.edge.refusals import HttpRefusal

REFUSALS_PER_TURN = 50
"""Of connections, before other greenlets run. Each costs some 20 microseconds."""


class AcceptRateLimiter(StreamServer):
    """Accepts connections, and refuses clients that connect too often before they cost a greenlet.

    Runs in the hub's loop and never waits. Otherwise a client that opens thousands of connections at once would keep
    everybody else in the system's queue until each of them had had a greenlet.
    """

    def __init__(
        self, listener: Any, handle: Callable[..., None], pool: Pool, limiter: ConnectionLimiter, *, speaks_http: bool
    ) -> None:
        """``handle`` is given the socket and the address; ``speaks_http``: refusals may be sent without TLS."""
        super().__init__(listener, handle, spawn=pool)
        self._limiter = limiter
        self._speaks_http = speaks_http
        self._iteration, self._refusals_left = -1, 0

    def do_read(self) -> Any:  # a gevent socket and its address; the stub forgets that there may be none
        """Returns the next accepted socket and its address, or ``None``. Called by gevent."""
        if self._iteration != self.loop.iteration:
            self._iteration, self._refusals_left = self.loop.iteration, REFUSALS_PER_TURN
        while self._refusals_left:
            accepted: Any = super().do_read()
            if accepted is None:
                return None
            sock, address = accepted
            refusal = self._limiter.check_connect(address[0])
            if refusal is None:
                return accepted
            self._refusals_left -= 1
            self._refuse(sock, refusal)
        return None

    def _refuse(self, sock: Any, refusal: HttpRefusal) -> None:
        """Sends the answer, whether it arrives or not, and closes."""
        try:
            if self._speaks_http:
                with suppress(OSError):
                    os.write(sock.fileno(), _answer(refusal))  # does not block: the send buffer is empty
        finally:
            sock.close()


@cache
def _answer(refusal: HttpRefusal) -> bytes:
    return refusal.answer(closes=True)
