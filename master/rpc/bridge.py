"""From grpc's thread to the gevent hub.

Work that is done for one message between others costs up to three times what it costs in a row, because it has left
the processor's caches since the last time, and the hub must be woken for it. So what can wait some milliseconds is
gathered.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from fleetpulse.master.mailbox import HubQueue

GATHER_SECONDS = 0.01
"""How long a call that can wait does wait for others."""


class HubBridge:
    """Made and closed on the hub, for the thread in which ``loop`` runs."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._wakes_soon = False
        self._mailbox = HubQueue("rpc")

    def call(self, function: Callable[..., None], *args: Any) -> None:
        """Have ``function(*args)`` called on the hub, after everything that was asked for before."""
        self._mailbox.post((partial(function, *args),))

    def call_soon(self, function: Callable[..., None], *args: Any) -> None:
        """The same, but the hub need not wake up for this call alone. In the loop's thread only."""
        self._mailbox.put((partial(function, *args),))
        if not self._wakes_soon:
            self._wakes_soon = True
            self._loop.call_later(GATHER_SECONDS, self._wake)

    def close(self) -> None:
        """Make no more calls."""
        self._mailbox.close()

    def _wake(self) -> None:
        self._wakes_soon = False
        self._mailbox.wake()
