"""Who may connect: so many in all and of one client, and those who ask nothing make room for those who do."""

import time
from typing import Any

from master.clients import Clients
from master.config import Limits
from master.gate.connection import Connection
from master.gate.rates import Buckets
from master.gate.refusals import CLIENT_FULL, FULL, TOO_OFTEN, Refusal
from master.instruments.http import HttpInstruments


class _Client:
    """One who is counted, while it has a connection."""

    __slots__ = ("open", "waiting")

    def __init__(self) -> None:
        self.open = 0
        self.waiting: dict[Connection, None] = {}


class Door:
    """All on the hub; nothing here switches to another greenlet."""

    def __init__(self, limits: Limits, instruments: HttpInstruments, idle_seconds: float) -> None:
        self.idle_seconds = idle_seconds
        self.head_seconds = limits.head_seconds
        self.answer_seconds = limits.answer_seconds
        self._limits = limits
        self._instruments = instruments
        self._names = Clients(limits_loopback=limits.limit_loopback)
        self._open: set[Connection] = set()
        self._waiting: dict[Connection, None] = {}
        """Those from which the next request is awaited, or the rest of its head; who has waited longest comes first."""

        self._clients: dict[str, _Client] = {}
        rate = limits.client_requests_per_second
        self._buckets = Buckets(rate, limits.client_burst) if rate else None
        instruments.connections.set_function(lambda: len(self._open))

    def connection(self, sock: Any, address: str) -> Connection:
        """A client's, not admitted yet."""
        return Connection(sock, self._names.name(address), self)

    def turns_away(self, connection: Connection) -> Refusal | None:
        """Whether its client connects too often: a connection counts as its first request, made or not."""
        connection.has_paid = True
        return self._too_often(connection)

    def admit(self, connection: Connection) -> Refusal | None:
        """Let it in, or say what to answer it. Where there is no room, one that asks nothing is cut."""
        client = None if connection.client is None else self._clients.get(connection.client)
        if client is not None and client.open >= self._limits.client_connections and not self._cut(client.waiting):
            return CLIENT_FULL
        if len(self._open) >= self._limits.connections and not self._cut(self._waiting):
            return FULL
        self._open.add(connection)
        if connection.client is not None:
            # Looked up again: what was cut may have been its only one.
            self._clients.setdefault(connection.client, _Client()).open += 1
        return None

    def leave(self, connection: Connection) -> None:
        """It is closed, or about to be; said twice, it changes nothing."""
        if connection not in self._open:
            return
        self._open.discard(connection)
        self.is_served(connection)
        if connection.client is not None:
            client = self._clients[connection.client]
            client.open -= 1
            if not client.open:
                del self._clients[connection.client]

    def refuses(self, connection: Connection) -> Refusal | None:
        """Whether its client asks too often."""
        if connection.has_paid:
            connection.has_paid = False
            return None
        return self._too_often(connection)

    def _too_often(self, connection: Connection) -> Refusal | None:
        if connection.client is None or self._buckets is None:
            return None
        if self._buckets.take(connection.client, time.monotonic()):
            return None
        self.reject("client_requests")
        return TOO_OFTEN

    def cut_idle(self) -> None:
        """Cut everybody from whom a request is awaited."""
        for connection in self._waiting:
            connection.cut()

    # For a connection

    def waits(self, connection: Connection) -> None:
        """A request is awaited from it, from now on."""
        if connection in self._open:
            self._waiting[connection] = None
            if connection.client is not None:
                self._clients[connection.client].waiting[connection] = None

    def is_served(self, connection: Connection) -> None:
        """A request of it has come, or will not come any more."""
        if connection in self._waiting:
            del self._waiting[connection]
            if connection.client is not None:
                del self._clients[connection.client].waiting[connection]

    def reject(self, reason: str) -> None:
        """Count a refusal."""
        self._instruments.reject(reason)

    def _cut(self, waiting: dict[Connection, None]) -> bool:
        longest = next(iter(waiting), None)
        if longest is None:
            return False
        longest.cut()
        self.leave(longest)
        self.reject("idle")
        return True
