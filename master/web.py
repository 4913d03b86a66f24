"""The gevent worker that gunicorn runs in the web process. Not loaded in the arbiter."""

import logging
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any

import gevent.socket
import gevent.ssl
from gevent.pool import Pool
from greenlet import greenlet
from gunicorn.http import wsgi
from gunicorn.workers.ggevent import GeventWorker

from fleetpulse.master.edge import requests
from fleetpulse.master.edge.accept import AcceptRateLimiter
from fleetpulse.master.edge.connections import LINGER_SECONDS, Connection, ConnectionLimiter
from fleetpulse.master.edge.refusals import refusal_of

_LOGGER = logging.getLogger(__name__)

_HANDSHAKE_SECONDS = 10.0
_REFUSED_PAUSE_SECONDS = 0.05
"""Before the next request of a client that exceeds its rate is read."""


class MasterWorker(GeventWorker):
    """gunicorn's gevent worker without gevent's patches.

    Code on the hub uses gevent by name. The rest of the process, above all grpc's thread, keeps the standard threads
    and locks.
    """

    def __init__(self, *args: Any, limiter: Callable[[], ConnectionLimiter], on_stop: Callable[[], None]) -> None:
        """``args`` are gunicorn's. ``limiter`` is called once the app is loaded; ``on_stop`` when a stop begins."""
        super().__init__(*args)
        self._limiter = limiter
        self._on_stop = on_stop
        self._connections: dict[greenlet, Connection] = {}

    def server_class(  # type: ignore[override]  # gunicorn calls it, and wants no more of it
        self, listener: Any, *, spawn: Pool, ssl_context: gevent.ssl.SSLContext | None = None, **_of_pywsgi: Any
    ) -> AcceptRateLimiter:
        """Returns the server that accepts connections. Called by gunicorn for each of its sockets."""
        limiter = self._limiter()
        handle = partial(self._handle_connection, limiter, ssl_context, listener)
        return AcceptRateLimiter(listener, handle, spawn, limiter, speaks_http=ssl_context is None)

    def _handle_connection(
        self, limiter: ConnectionLimiter, tls: gevent.ssl.SSLContext | None, listener: Any, client: Any, addr: Any
    ) -> None:
        """Serves a connection from its first byte to its last. Called by gevent, in a greenlet of its own."""
        connection = limiter.connection(client, addr[0])
        try:
            refusal = limiter.admit(connection)
            seconds = _HANDSHAKE_SECONDS if refusal is None else LINGER_SECONDS
            if tls is not None and not connection.start_tls(tls, seconds):
                return
            if refusal is None:
                self._serve(listener, connection, addr)
            else:
                connection.send_refusal(refusal)
        finally:
            limiter.release(connection)
            connection.close()

    def _serve(self, listener: Any, connection: Connection, addr: Any) -> None:
        current = gevent.getcurrent()
        self._connections[current] = connection
        try:
            # Skips GeventWorker's own, which would remove the socket's timeout.
            wrapped: Any = connection
            super(GeventWorker, self).handle(listener, wrapped, addr)
        finally:
            del self._connections[current]

    def timeout_ctx(self) -> Connection:  # type: ignore[override]  # its stub forgets the context manager
        """Returns what bounds the wait for a connection's next request. Called by gunicorn."""
        return self._connections[gevent.getcurrent()]

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> bool:
        """Answers one request. Called by gunicorn; raises ``StopIteration`` to close the connection."""
        requests.check_host(req)
        if (refusal := sock.check_request(req.path)) is not None:
            closes = requests.has_unread_body(req.body) or req.should_close()
            sock.sendall(refusal.answer(closes=closes, has_body=req.method != "HEAD"))
            if closes:
                sock.linger()
                raise StopIteration
            gevent.sleep(_REFUSED_PAUSE_SECONDS)
            return True
        requests.limit_chunks(req)
        if requests.is_too_long(req.body):
            req.force_close()
        try:
            super().handle_request(listener_name, req, sock, addr)
        except StopIteration:
            if requests.has_unread_body(req.body):
                sock.linger()
            raise
        with sock.evictable():
            is_whole = requests.discard(req.body)
        if not is_whole:
            sock.linger()
            raise StopIteration
        return True

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answers a request not parsed or failed. Called by gunicorn, which closes the connection then."""
        if isinstance(exc, gevent.GreenletExit | SystemExit):
            return
        refusal = refusal_of(exc)
        if refusal.reason is None:
            _LOGGER.error("a request of %s failed", addr[0], exc_info=exc)
        else:
            _LOGGER.debug("a request of %s was refused: %s", addr[0], refusal.detail)
        client.refuse(refusal)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begins to stop. Called by gunicorn, in the signal's handler."""
        super().handle_exit(sig, frame)
        gevent.spawn(self._on_stop)

    def patch(self) -> None:
        """Replaces the listeners by gevent sockets, and the name in answers. Called by gunicorn after the fork."""
        # gunicorn's own says which server, and so which faults, to try.
        answers: Any = wsgi  # its stub forgets the name
        answers.SERVER = "fleetpulse"
        listeners: list[Any] = self.sockets  # gunicorn's own wrappers, which its stubs call sockets
        self.sockets = [
            gevent.socket.socket(listener.FAMILY, socket.SOCK_STREAM, fileno=listener.sock.detach())
            for listener in listeners
        ]


def ssl_context(config: Any) -> ssl.SSLContext:
    """Returns the TLS context of the HTTP port, with the certificate in gunicorn's settings."""
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(config.certfile, config.keyfile)
    return context
