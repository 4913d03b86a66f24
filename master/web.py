"""What gunicorn runs in the web process: its gevent worker, as FleetPulse needs it. Not loaded in the arbiter."""

import logging
import socket
import ssl
from functools import partial
from typing import Any

import gevent.socket
import gevent.ssl
from gevent.pool import Pool
from greenlet import greenlet
from gunicorn.workers.ggevent import GeventWorker

from fleetpulse.master.edge import bodies
from fleetpulse.master.edge.connection import LINGER_SECONDS, Connection
from fleetpulse.master.edge.door import ConnectionLimiter
from fleetpulse.master.edge.refusals import refusal_of
from fleetpulse.master.edge.turnstile import AcceptRateLimiter

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
        self._tls: gevent.ssl.SSLContext | None = None
        self.door: ConnectionLimiter | None = None

    def load_wsgi(self) -> None:
        """Called by gunicorn in the web process, before it listens."""
        super().load_wsgi()
        app: Any = self.app  # a MasterServer, which is above this module
        self.door = app.door()

    def server_class(  # type: ignore[override]  # gunicorn calls it, and wants no more of it
        self, listener: Any, *, spawn: Pool, ssl_context: gevent.ssl.SSLContext | None = None, **_of_pywsgi: Any
    ) -> AcceptRateLimiter:
        """What accepts connections. Called by gunicorn for each of its sockets."""
        assert self.door is not None  # nosec B101 # for the type checker
        self._tls = ssl_context
        return AcceptRateLimiter(
            listener, partial(self.handle, listener), spawn, self.door, speaks_http=ssl_context is None
        )

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """A connection, from its first byte to its last. Called by gevent, in a greenlet of its own."""
        assert self.door is not None  # nosec B101 # for the type checker
        connection = self.door.connection(client, addr[0])
        try:
            if (refusal := self.door.admit(connection)) is None:
                self._serve(listener, connection, addr)
            elif self._has_tls(connection, LINGER_SECONDS):
                connection.tell(refusal)
        finally:
            self.door.leave(connection)
            connection.close()

    def _serve(self, listener: Any, connection: Connection, addr: Any) -> None:
        if not self._has_tls(connection, _HANDSHAKE_SECONDS):
            return
        current = gevent.getcurrent()
        self._connections[current] = connection
        try:
            # Past GeventWorker's own, which would have the connection wait for ever.
            wrapped: Any = connection
            super(GeventWorker, self).handle(listener, wrapped, addr)
        finally:
            del self._connections[current]

    def _has_tls(self, connection: Connection, seconds: float) -> bool:
        return self._tls is None or connection.shake_hands(self._tls, seconds)

    def timeout_ctx(self) -> Connection:  # type: ignore[override]  # its stub forgets the context manager
        """Bounds the wait for a connection's next request. Called by gunicorn."""
        return self._connections[gevent.getcurrent()]

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> bool:
        """Answer one request. Called by gunicorn; raises ``StopIteration`` where the connection is to be closed."""
        assert self.door is not None  # nosec B101 # for the type checker
        if (refusal := self.door.refuses(sock, req.path)) is not None:
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


def ssl_context(config: Any) -> ssl.SSLContext:
    """What connections are wrapped by, with the certificate that gunicorn was given."""
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(config.certfile, config.keyfile)
    return context
