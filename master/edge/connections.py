"""Limits on connections: how many, how often, and how slow a client may be.

All on the hub. A full table closes the connection that has waited longest for a request.
"""

import errno
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self

import gevent
import gevent.ssl

from fleetpulse.master.access.peers import Peers, endpoint_of
from fleetpulse.master.addresses import Clients
from fleetpulse.master.audit.entries import Record, unrecorded
from fleetpulse.master.config import Limits
from fleetpulse.master.edge.refusals import (
    CLIENT_FULL,
    CONNECT,
    FULL,
    MAX_HEAD_BYTES,
    REQUEST,
    SLOW_HEAD,
    TLS_HANDSHAKE,
    TOO_OFTEN,
    HeadTooLarge,
    HttpRefusal,
    audit_entry,
)
from fleetpulse.master.edge.requests import RateLimiter
from fleetpulse.master.instruments import HttpInstruments

LINGER_SECONDS = 1.0
MAX_LINGER_BYTES = 4 * 1024 * 1024
_OPEN_STATES = (1, 8)
"""``TCP_ESTABLISHED`` and ``TCP_CLOSE_WAIT``, in which the other end may have sent its last byte."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Connection:
    """Wraps a gevent socket. Used by the connection's greenlet, except for ``cut``.

    As a context manager it bounds the wait for the next request: how long the client may stay silent, and how long the
    head may take from its first byte on.
    """

    __slots__ = (
        *("_head_bytes", "_head_deadline_set", "_is_cut", "_is_idle", "_is_own_user", "_last_iteration", "_limiter"),
        *("_socket", "_timeout", "address", "client", "first_request_counted"),
    )

    def __init__(self, sock: Any, address: str, client: str | None, limiter: "ConnectionLimiter") -> None:
        """``address`` is the other end's; ``client`` is the key it is counted under, or ``None``."""
        self.address, self.client = address, client
        self._socket = sock
        sock.settimeout(limiter.answer_seconds)
        self._limiter = limiter
        self.first_request_counted = True
        """The connection itself was counted as its first request."""

        self._is_idle = self._head_deadline_set = self._is_cut = False
        self._head_bytes = 0
        self._timeout: gevent.Timeout | None = None
        self._last_iteration = -1
        self._is_own_user: bool | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    # The wait for a request

    def __enter__(self) -> Self:
        self._is_idle, self._head_deadline_set = True, False
        self._head_bytes = 0
        self._socket.settimeout(None)
        self._timeout = gevent.Timeout.start_new(self._limiter.idle_seconds)
        self._limiter.mark_idle(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Suppresses the timeout: gunicorn closes a connection on which no request came."""
        timeout, self._timeout = self._timeout, None
        if timeout is not None:
            timeout.close()
        self._is_idle = False
        self._socket.settimeout(self._limiter.answer_seconds)
        self._limiter.mark_busy(self)
        if error is None or error is not timeout:
            return False
        if self._head_bytes:
            self.refuse(SLOW_HEAD)
        return True

    # For gunicorn

    def recv(self, size: int) -> bytes:
        data: bytes
        if not self._is_idle:
            return self._recv_body(size)
        if self._head_bytes and not self._head_deadline_set:
            self._set_head_deadline()
        data = self._socket.recv(size)
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise HeadTooLarge
        return data

    def _set_head_deadline(self) -> None:
        self._head_deadline_set = True
        if self._timeout is not None:
            self._timeout.close()
        self._timeout = gevent.Timeout.start_new(self._limiter.head_seconds)

    def _recv_body(self, size: int) -> bytes:
        loop = gevent.get_hub().loop
        if self._last_iteration == loop.iteration:
            gevent.sleep(0)  # a body may always have more bytes ready; let other greenlets run
        self._last_iteration = loop.iteration
        data: bytes = self._socket.recv(size)
        return data

    def sendall(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except TimeoutError as error:
            self._limiter.count_rejected("answer_not_taken")
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            raise BrokenPipeError(errno.EPIPE, "the client does not take its answer") from error

    # For the worker

    def start_tls(self, context: gevent.ssl.SSLContext, seconds: float) -> bool:
        """Returns whether TLS was negotiated. The caller closes the connection if not.

        A client that leaves before it sends anything counts as no refusal.
        """
        self._limiter.mark_idle(self)
        has_sent = False
        try:
            with gevent.Timeout(seconds, TimeoutError(f"it did not end within {seconds:g} seconds")):
                has_sent = bool(self._socket.recv(1, socket.MSG_PEEK))
                if has_sent:
                    self._socket = context.wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
                    self._socket.do_handshake()
        except OSError as error:
            if not self._is_cut and (has_sent or isinstance(error, TimeoutError)):
                reason = getattr(error, "reason", None) or error.strerror or str(error)
                self._limiter.record_failed_handshake(self, reason)
            return False
        finally:
            self._limiter.mark_busy(self)
        return has_sent

    def is_own_user(self) -> bool:
        """Returns whether the other end belongs to a user who needs no token. Asks the system once."""
        if self._is_own_user is None:
            self._is_own_user = self._limiter.is_own_user(self._socket)
        return self._is_own_user

    @contextmanager
    def evictable(self) -> Iterator[None]:
        """While the context is open, the connection may be cut to make room, as one that waits for a request."""
        self._limiter.mark_idle(self)
        try:
            yield
        finally:
            self._limiter.mark_busy(self)

    def check_request(self, path: str) -> HttpRefusal | None:
        """Returns a refusal if the client requests too often."""
        return self._limiter.check_request(self, path)

    def refuse(self, refusal: HttpRefusal) -> None:
        """Records and sends a refusal. The caller closes the connection."""
        self._limiter.record_refusal(refusal, self.address, REQUEST)
        self.send_refusal(refusal)

    def send_refusal(self, refusal: HttpRefusal) -> None:
        """Sends a refusal and lingers. The caller closes the connection."""
        with suppress(OSError):
            self.sendall(refusal.answer(closes=True))
            self.linger()

    def linger(self) -> None:
        """Half-closes, and discards what the client still sends, within limits.

        On a close with unread data the system would discard the answer as well.
        """
        taken = 0
        with suppress(OSError), self.evictable(), gevent.Timeout(LINGER_SECONDS, False):  # type: ignore[arg-type]  # False: end quietly
            self._socket.shutdown(socket.SHUT_WR)
            while taken < MAX_LINGER_BYTES and (data := self._socket.recv(64 * 1024)):
                taken += len(data)
                gevent.sleep(0)

    def cut(self) -> None:
        """Ends the wait for a request as if the client had closed. Does not switch.

        A request that has arrived already is answered.
        """
        self._is_cut = True
        plain = socket.socket(fileno=self._socket.fileno())
        try:
            with suppress(OSError):  # the client may have closed meanwhile
                plain.shutdown(socket.SHUT_RD)
        finally:
            plain.detach()


class _Client:
    """A counted client, while it has connections."""

    __slots__ = ("idle", "open")

    def __init__(self) -> None:
        self.open = 0
        self.idle: dict[Connection, None] = {}


class ConnectionLimiter:
    """Limits open connections, in all and per client, and the rate of requests. Nothing here switches."""

    def __init__(
        self,
        limits: Limits,
        instruments: HttpInstruments,
        record: Record = unrecorded,
        peers: Peers | None = None,
    ) -> None:
        """``peers`` says who is served without a token; ``None``: everybody."""
        self._peers = peers
        self.idle_seconds = limits.idle_seconds
        self.head_seconds = limits.head_seconds
        self.answer_seconds = limits.answer_seconds
        self._limits = limits
        self._instruments, self._record = instruments, record
        self._names = Clients(limits_loopback=limits.limit_loopback)
        self._open: set[Connection] = set()
        self._idle: dict[Connection, None] = {}
        """Connections that wait for a request or the rest of its head, the one that has waited longest first."""

        self._clients: dict[str, _Client] = {}
        rate = limits.client_requests_per_second
        self._rate_limiter = RateLimiter(rate, limits.client_burst) if rate else None
        instruments.connections.set_function(lambda: len(self._open))

    def check_connect(self, address: str) -> HttpRefusal | None:
        """Returns a refusal if the client connects too often: a connection counts as its first request."""
        if self._is_allowed(self._names.name(address)):
            return None
        self.record_refusal(TOO_OFTEN, address, CONNECT)
        return TOO_OFTEN

    def check_request(self, connection: Connection, path: str) -> HttpRefusal | None:
        """Returns a refusal if the client requests too often."""
        if connection.first_request_counted:
            connection.first_request_counted = False
            return None
        if self._is_allowed(connection.client):
            return None
        self.record_refusal(TOO_OFTEN, connection.address, REQUEST, path)
        return TOO_OFTEN

    def _is_allowed(self, client: str | None) -> bool:
        return client is None or self._rate_limiter is None or self._rate_limiter.allow(client, time.monotonic())

    def connection(self, sock: Any, address: str) -> Connection:
        """Wraps the socket of a connection that passed ``check_connect`` and is not admitted yet."""
        return Connection(sock, address, self._names.name(address), self)

    def admit(self, connection: Connection) -> HttpRefusal | None:
        """Admits the connection or returns a refusal. Where a table is full, an idle connection is cut for it."""
        client = None if connection.client is None else self._clients.get(connection.client)
        refusal = None
        if client is not None and client.open >= self._limits.client_connections and not self._cut_longest(client.idle):
            refusal = CLIENT_FULL
        elif len(self._open) >= self._limits.connections and not self._cut_longest(self._idle):
            refusal = FULL
        if refusal is not None:
            self.record_refusal(refusal, connection.address, CONNECT)
            return refusal
        self._open.add(connection)
        if connection.client is not None:
            # Looked up again: the connection that was cut may have been the client's only one.
            self._clients.setdefault(connection.client, _Client()).open += 1
        return None

    def release(self, connection: Connection) -> None:
        """Removes a connection that is closed or about to be; does nothing the second time."""
        if connection not in self._open:
            return
        self._open.discard(connection)
        self.mark_busy(connection)
        if connection.client is not None:
            client = self._clients[connection.client]
            client.open -= 1
            if not client.open:
                del self._clients[connection.client]

    def cut_idle(self) -> None:
        """Cuts every connection that waits for a request."""
        for connection in self._idle:
            connection.cut()

    # For a connection

    def is_own_user(self, sock: Any) -> bool:
        """Returns whether the other end belongs to the master's own user or root. May switch where that is slow."""
        if self._peers is None:
            return True
        try:
            ends = endpoint_of(sock.getpeername()), endpoint_of(sock.getsockname())
            if self._peers.is_slow:
                is_own: bool = gevent.get_hub().threadpool.apply(self._peers.is_own, ends)
            else:
                is_own = self._peers.is_own(*ends)
            # Still open, so nobody else can have had the same two ends meanwhile.
            return is_own and sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in _OPEN_STATES
        except OSError:
            return False

    def mark_idle(self, connection: Connection) -> None:
        """The connection waits for a request from now on."""
        if connection in self._open:
            self._idle[connection] = None
            if connection.client is not None:
                self._clients[connection.client].idle[connection] = None

    def mark_busy(self, connection: Connection) -> None:
        """A request has come, or none will come any more."""
        if connection in self._idle:
            del self._idle[connection]
            if connection.client is not None:
                del self._clients[connection.client].idle[connection]

    def record_refusal(self, refusal: HttpRefusal, address: str, action: str, target: str = "") -> None:
        """Counts and records a refusal."""
        if refusal.reason is not None:
            self._instruments.reject(refusal.reason)
            status, detail = str(refusal.status.value), refusal.kind or refusal.detail
            self._record(audit_entry(refusal.reason, detail, address, action, status, target))

    def record_failed_handshake(self, connection: Connection, reason: str) -> None:
        """Counts and records a connection without TLS."""
        self._instruments.reject(TLS_HANDSHAKE)
        self._record(audit_entry(TLS_HANDSHAKE, reason, connection.address, CONNECT))

    def count_rejected(self, reason: str) -> None:
        """Counts a connection that is cut without a refused request."""
        self._instruments.reject(reason)

    def _cut_longest(self, idle: dict[Connection, None]) -> bool:
        longest = next(iter(idle), None)
        if longest is None:
            return False
        longest.cut()
        self.release(longest)
        self.count_rejected("idle")
        return True
