"""Who may connect: so many in all and of one client, and those who ask nothing make room for those who do."""

import time
from typing import Any

from fleetpulse.master.audit.entry import Record, unrecorded
from fleetpulse.master.clients import Clients
from fleetpulse.master.config import Limits
from fleetpulse.master.edge.audit import CONNECT, REQUEST, entry_of
from fleetpulse.master.edge.connection import Connection
from fleetpulse.master.edge.rates import Buckets
from fleetpulse.master.edge.refusals import CLIENT_FULL, FULL, TLS_HANDSHAKE, TOO_OFTEN, Refusal
from fleetpulse.master.instruments import HttpInstruments


class _Client:
    """One who is counted, while it has a connection."""

    __slots__ = ("open", "waiting")

    def __init__(self) -> None:
        self.open = 0
        self.waiting: dict[Connection, None] = {}


class ConnectionLimiter:
    """All on the hub; nothing here switches to another greenlet."""

    def __init__(
        self, limits: Limits, instruments: HttpInstruments, idle_seconds: float, record: Record = unrecorded
    ) -> None:
        self.idle_seconds = idle_seconds
        self.head_seconds = limits.head_seconds
        self.answer_seconds = limits.answer_seconds
        self._limits = limits
        self._instruments, self._record = instruments, record
        self._names = Clients(limits_loopback=limits.limit_loopback)
        self._open: set[Connection] = set()
        self._waiting: dict[Connection, None] = {}
        """Those from which the next request is awaited, or the rest of its head; who has waited longest comes first."""

        self._clients: dict[str, _Client] = {}
        rate = limits.client_requests_per_second
        self._buckets = Buckets(rate, limits.client_burst) if rate else None
        instruments.connections.set_function(lambda: len(self._open))

    def turns_away(self, address: str) -> Refusal | None:
        """Whether the client there connects too often: a connection counts as its first request, made or not."""
        if not self._is_too_often(self._names.name(address)):
            return None
        self.reject(TOO_OFTEN, address, CONNECT)
        return TOO_OFTEN

    def connection(self, sock: Any, address: str) -> Connection:
        """Of one that was not turned away, and is not admitted yet."""
        return Connection(sock, address, self._names.name(address), self)

    def admit(self, connection: Connection) -> Refusal | None:
        """Let it in, or say what to answer it. Where there is no room, one that asks nothing is cut."""
        client = None if connection.client is None else self._clients.get(connection.client)
        refusal = None
        if client is not None and client.open >= self._limits.client_connections and not self._cut(client.waiting):
            refusal = CLIENT_FULL
        elif len(self._open) >= self._limits.connections and not self._cut(self._waiting):
            refusal = FULL
        if refusal is not None:
            self.reject(refusal, connection.address, CONNECT)
            return refusal
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

    def refuses(self, connection: Connection, path: str) -> Refusal | None:
        """Whether the client, which asks for something at a path, asks too often."""
        if connection.has_paid:
            connection.has_paid = False
            return None
        if not self._is_too_often(connection.client):
            return None
        self.reject(TOO_OFTEN, connection.address, REQUEST, path)
        return TOO_OFTEN

    def _is_too_often(self, client: str | None) -> bool:
        return client is not None and self._buckets is not None and not self._buckets.take(client, time.monotonic())

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

    def reject(self, refusal: Refusal, address: str, action: str, target: str = "") -> None:
        """Count and record a refusal."""
        if refusal.reason is not None:
            self._instruments.reject(refusal.reason)
            status, words = str(refusal.status.value), refusal.kind or refusal.detail
            self._record(entry_of(refusal.reason, words, address, action, status, target))

    def fails_handshake(self, connection: Connection, why: str) -> None:
        """Count and record that there is no TLS to be had."""
        self._instruments.reject(TLS_HANDSHAKE)
        self._record(entry_of(TLS_HANDSHAKE, why, connection.address, CONNECT))

    def count(self, reason: str) -> None:
        """Count one that is cut, which is no refusal of anything that it asked."""
        self._instruments.reject(reason)

    def _cut(self, waiting: dict[Connection, None]) -> bool:
        longest = next(iter(waiting), None)
        if longest is None:
            return False
        longest.cut()
        self.leave(longest)
        self.count("idle")
        return True
