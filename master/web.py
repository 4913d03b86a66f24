"""What gunicorn runs in the web process: its gevent worker, as FleetPulse needs it. Not loaded in the arbiter."""

import logging
import socket
import ssl
from typing import Any

import gevent.socket
import gevent.ssl
from greenlet import greenlet
from gunicorn.workers.ggevent import GeventWorker

from master.gate import bodies
from master.gate.connection import Connection
from master.gate.door import Door
from master.gate.refusals import refusal_of

_LOGGER = logging.getLogger(__name__)

_HANDSHAKE_SECONDS = 10.0
_REFUSED_PAUSE_SECONDS = 0.05
"""Before the next request of a client that asks too often is looked at."""


class MasterWorker(GeventWorker):
    """gunicorn's gevent worker without gevent's patches.

    What runs on the hub uses gevent by name. The rest of the process, grpc's thread above all, keeps the threads and
    locks that it was written for.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._connections: dict[greenlet, Connection] = {}
        self.door: Door | None = None

    def load_wsgi(self) -> None:
        """Called by gunicorn in the web process, before it listens."""
        super().load_wsgi()
        app: Any = self.app  # a MasterServer, which is above this module
        self.door = app.door()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """A connection, from its first byte to its last. Called by gevent, in a greenlet of its own."""
        assert self.door is not None  # nosec B101 # for the type checker
        connection = self.door.connection(client, addr[0])
        if (refusal := self.door.turns_away(connection)) is not None:
            connection.turn_away(refusal)
            return
        if (refusal := self.door.admit(connection)) is not None:
            connection.refuse(refusal)
            return
        current = gevent.getcurrent()
        self._connections[current] = connection
        try:
            # Past GeventWorker's own, which would have the connection wait for ever.
            wrapped: Any = connection
            super(GeventWorker, self).handle(listener, wrapped, addr)
        finally:
            del self._connections[current]
            self.door.leave(connection)

    def timeout_ctx(self) -> Connection:  # type: ignore[override]  # its stub forgets the context manager
        """Bounds the wait for a connection's next request. Called by gunicorn."""
        return self._connections[gevent.getcurrent()]

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> bool:
        """Answer one request. Called by gunicorn; raises ``StopIteration`` where the connection is to be closed."""
        assert self.door is not None  # nosec B101 # for the type checker
        if (refusal := self.door.refuses(sock)) is not None:
            closes = bodies.is_unread(req.body) or req.should_close()
            sock.sendall(refusal.answer(closes=closes, has_body=req.method != "HEAD"))
            if closes:
                sock.linger()
                raise StopIteration
            gevent.sleep(_REFUSED_PAUSE_SECONDS)
            return True
        bodies.limit_chunks(req)
        if bodies.is_long(req.body):
            req.force_close()
        try:
            super().handle_request(listener_name, req, sock, addr)
        except StopIteration:
            if bodies.is_unread(req.body):
                sock.linger()
            raise
        if not bodies.finish(req.body):
            sock.linger()
            raise StopIteration
        return True

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer what could not be read, or what failed. Called by gunicorn, which then closes the connection."""
        if isinstance(exc, gevent.GreenletExit | SystemExit):
            return
        refusal = refusal_of(exc)
        if refusal.reason is None:
            _LOGGER.error("a request of %s failed", addr[0], exc_info=exc)
        else:
            _LOGGER.debug("a request of %s was refused: %s", addr[0], refusal.detail)
        client.refuse(refusal)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Stop, and do not wait for connections that ask nothing. Called by gunicorn, in the signal's handler."""
        super().handle_exit(sig, frame)
        gevent.spawn(self._end_idle_connections)

    def _end_idle_connections(self) -> None:
        app: Any = self.app
        app.end_long_answers()
        if self.door is not None:
            self.door.cut_idle()

    def patch(self) -> None:
        """Listen on gevent's sockets. Called by gunicorn after the fork."""
        listeners: list[Any] = self.sockets  # gunicorn's own wrappers, which its stubs call sockets
        self.sockets = [
            gevent.socket.socket(listener.FAMILY, socket.SOCK_STREAM, fileno=listener.sock.detach())
            for listener in listeners
        ]


class _HandshakeContext(gevent.ssl.SSLContext):
    """gevent's kind, because the sockets are gevent's. A handshake that fails, or never ends, is nobody's error."""

    def wrap_socket(self, sock: Any, *args: Any, **kwargs: Any) -> Any:
        """Shake hands. Called by gevent in the connection's greenlet, which ends where there is no TLS to be had."""
        try:
            with gevent.Timeout(_HANDSHAKE_SECONDS, TimeoutError):
                return super().wrap_socket(sock, *args, **kwargs)
        except OSError as error:
            _LOGGER.debug("a TLS handshake failed: %s", error)
            sock.close()
            raise gevent.GreenletExit from None


def ssl_context(config: Any) -> ssl.SSLContext:
    """What connections are wrapped by, with the certificate that gunicorn was given."""
    context = _HandshakeContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(config.certfile, config.keyfile)
    return context
