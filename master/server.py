"""gunicorn as FleetPulse runs it: an arbiter that restarts the one gevent process in which the master lives."""

import logging
import os
import signal
import socket
import ssl
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import gevent.socket
import gevent.ssl
from gevent.pool import Pool
from greenlet import greenlet
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.workers.ggevent import GeventWorker

from master.config import MasterConfig
from master.errors import ConfigError, StoreUnavailable
from master.gate import bodies
from master.gate.connection import LINGER_SECONDS, Connection
from master.gate.door import Door
from master.gate.refusals import refusal_of
from master.gate.turnstile import Turnstile
from master.rpc.core_log import CoreLog

if TYPE_CHECKING:
    from master.app import Master

_LOGGER = logging.getLogger(__name__)

_IDLE_SECONDS = 20
_CONNECTIONS_BESIDE = 1000
"""Those that are being told that there is no room, and those that were cut and are not closed yet."""

_HANDSHAKE_SECONDS = 10.0
_REFUSED_PAUSE_SECONDS = 0.05
"""Before the next request of a client that asks too often is looked at."""

_REQUESTS_GRACE_SECONDS = 3
_STOP_TIMEOUT_SECONDS = 9


class MasterServer(BaseApplication):
    """``MasterServer(config).run()`` serves until SIGTERM or SIGINT, then exits the process."""

    def __init__(self, config: MasterConfig) -> None:
        self.config = config
        self._master: Master | None = None
        self._core_log: CoreLog | None = None
        super().__init__()

    def load_config(self) -> None:
        """gunicorn's settings. Called by gunicorn."""
        settings: dict[str, Any] = {
            "bind": str(self.config.http),
            "workers": 1,
            "worker_class": "master.server.MasterWorker",
            # More than the door lets in, so that the next one is answered and not left waiting.
            "worker_connections": self.config.limits.connections + _CONNECTIONS_BESIDE,
            "keepalive": _IDLE_SECONDS,
            # The arbiter's limit; the process itself gives requests less, so that it has time to stop the rest.
            "graceful_timeout": _STOP_TIMEOUT_SECONDS,
            "timeout": 30,
            "control_socket_disable": True,
            "loglevel": self.config.log_level,
            "proc_name": "fleetpulse-master",
            "pre_fork": self._before_fork,
            "post_fork": self._after_fork,
            # A web process that could not start ends the arbiter, which then calls the second only.
            "child_exit": lambda _arbiter, _worker: self._drain_core_log(),
            "on_exit": lambda _arbiter: self._drain_core_log(),
            "worker_exit": self._on_worker_exit,
        }
        if self.config.access.tls is not None:
            certificate, key = self.config.access.tls
            settings |= {"certfile": str(certificate), "keyfile": str(key), "ssl_context": _ssl_context}
        for name, value in settings.items():
            self.cfg.set(name, value)

    def run(self) -> None:
        """Serve. Never returns."""
        MasterArbiter(self).run()

    def load(self) -> Any:
        """Build and start the master. Called by gunicorn in the web process."""
        try:
            self._master = self.build()
            self._master.start()
        except (ConfigError, StoreUnavailable) as error:
            _LOGGER.error("%s", error)  # noqa: TRY400 - the message says all, a traceback nothing more
            raise SystemExit(Arbiter.APP_LOAD_ERROR) from error
        return self._master.wsgi

    def build(self) -> "Master":
        """The master, not started, in the web process. Where a composition of one's own adds to it."""
        from master.app import Master  # noqa: PLC0415 - grpc must not be loaded before the fork

        return Master(self.config, self._core_log)

    def _before_fork(self, _arbiter: Any, _worker: Any) -> None:
        if self.config.tls is not None:
            self._core_log = CoreLog()

    def _after_fork(self, _arbiter: Any, worker: Any) -> None:
        worker.cfg.set("graceful_timeout", _REQUESTS_GRACE_SECONDS)
        if self._core_log is not None:
            self._core_log.capture()

    def _drain_core_log(self) -> None:
        if self._core_log is not None:
            self._core_log.drain()
            self._core_log = None

    def _on_worker_exit(self, _arbiter: Any, _worker: Any) -> None:
        # On SIGTERM gunicorn waits for its requests only; nothing else would end the rest.
        self.stop_master()
        if self._core_log is not None:
            self._core_log.release()

    def door(self) -> Door:
        """Who may connect to the master. Called by the worker in the web process, once."""
        assert self._master is not None  # nosec B101 # for the type checker
        return Door(self.config.limits, self._master.instruments.http, _IDLE_SECONDS, self._master.record)

    def end_long_answers(self) -> None:
        """Let those who follow something go. Called by the worker when it is told to stop."""
        if self._master is not None:
            self._master.end_long_answers()

    def stop_master(self) -> None:
        """Stop what was built, in the web process. Where a composition of one's own stops what it added."""
        if self._master is not None:
            self._master.stop()


class MasterArbiter(Arbiter):
    """gunicorn's arbiter for exactly one web process: two at a time would want the same gRPC port."""

    def handle_hup(self) -> None:
        """SIGHUP starts the web process anew, when the old one has given everything up. Called by gunicorn."""
        _LOGGER.info("The web process starts anew")
        self.kill_workers(signal.SIGTERM)

    def handle_ttin(self) -> None:
        """SIGTTIN, SIGTTOU and SIGUSR2 want other numbers of processes, and are refused. Called by gunicorn."""
        _LOGGER.warning("A master is exactly one web process")

    handle_ttou = handle_usr2 = handle_ttin


class MasterWorker(GeventWorker):
    """gunicorn's gevent worker without gevent's patches.

    What runs on the hub uses gevent by name. The rest of the process, grpc's thread above all, keeps the threads and
    locks that it was written for.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._connections: dict[greenlet, Connection] = {}
        self._tls: gevent.ssl.SSLContext | None = None
        self.door: Door | None = None

    def load_wsgi(self) -> None:
        """Called by gunicorn in the web process, before it listens."""
        super().load_wsgi()
        assert isinstance(self.app, MasterServer)  # nosec B101 # for the type checker
        self.door = self.app.door()

    def server_class(  # type: ignore[override]  # gunicorn calls it, and wants no more of it
        self, listener: Any, *, spawn: Pool, ssl_context: gevent.ssl.SSLContext | None = None, **_of_pywsgi: Any
    ) -> Turnstile:
        """What accepts connections. Called by gunicorn for each of its sockets."""
        assert self.door is not None  # nosec B101 # for the type checker
        self._tls = ssl_context
        return Turnstile(listener, partial(self.handle, listener), spawn, self.door, speaks_http=ssl_context is None)

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
        if isinstance(self.app, MasterServer):
            self.app.end_long_answers()
        if self.door is not None:
            self.door.cut_idle()

    def patch(self) -> None:
        """Listen on gevent's sockets. Called by gunicorn after the fork."""
        listeners: list[Any] = self.sockets  # gunicorn's own wrappers, which its stubs call sockets
        self.sockets = [
            gevent.socket.socket(listener.FAMILY, socket.SOCK_STREAM, fileno=listener.sock.detach())
            for listener in listeners
        ]


def _ssl_context(config: Any, _default: Any) -> Any:
    """What connections are wrapped by. Called by gunicorn in the web process."""
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(config.certfile, config.keyfile)
    return context


def refuse_several_processes() -> None:
    """Raise ``ConfigError`` if the environment asks for more than one web process, as gunicorn's users may."""
    asked = os.environ.get("WEB_CONCURRENCY", "1")
    if asked != "1":
        raise ConfigError(
            f"WEB_CONCURRENCY={asked}: a master is exactly one web process, because the live state is in its memory"
        )


class _OneLineFormatter(logging.Formatter):
    """Whatever a message quotes, it is one line, and does nothing to a terminal. Tracebacks are left as they are."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Called by ``format``."""
        if not record.message.isprintable():
            record.message = "".join(
                letter if letter.isprintable() else ascii(letter)[1:-1] for letter in record.message
            )
        return super().formatMessage(record)


def configure_logging(level: str) -> None:
    """One line an event on stderr, as gunicorn writes them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
