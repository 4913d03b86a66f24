"""gunicorn as FleetPulse runs it: an arbiter that restarts the one gevent process in which the master lives."""

import contextlib
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gevent.socket
import gevent.ssl
from greenlet import greenlet
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.workers.ggevent import GeventWorker

from master.config import MasterConfig
from master.errors import ConfigError, StoreUnavailable

if TYPE_CHECKING:
    from master.app import Master

_LOGGER = logging.getLogger(__name__)

_REQUESTS_GRACE_SECONDS = 3
_STOP_TIMEOUT_SECONDS = 9


class MasterServer(BaseApplication):
    """``MasterServer(config).run()`` serves until SIGTERM or SIGINT, then exits the process."""

    def __init__(self, config: MasterConfig) -> None:
        self.config = config
        self._master: Master | None = None
        super().__init__()

    def load_config(self) -> None:
        """gunicorn's settings. Called by gunicorn."""
        settings: dict[str, Any] = {
            "bind": str(self.config.http),
            "workers": 1,
            "worker_class": "master.server.MasterWorker",
            "worker_connections": 2000,
            "keepalive": 20,
            # The arbiter's limit; the process itself gives requests less, so that it has time to stop the rest.
            "graceful_timeout": _STOP_TIMEOUT_SECONDS,
            "timeout": 30,
            "control_socket_disable": True,
            "loglevel": self.config.log_level,
            "proc_name": "fleetpulse-master",
            "post_fork": _shorten_grace,
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

        return Master(self.config)

    def _on_worker_exit(self, _arbiter: Any, _worker: Any) -> None:
        # On SIGTERM gunicorn waits for its requests only; nothing else would end the rest.
        self.stop_master()

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
        self._idle: dict[gevent.Timeout, greenlet] = {}

    @contextlib.contextmanager
    def timeout_ctx(self) -> Iterator[None]:  # type: ignore[override]  # its stub forgets the context manager
        """Bounds the wait for a connection's next request. Called by gunicorn."""
        with gevent.Timeout(self.cfg.keepalive, False) as patience:  # type: ignore[arg-type]  # False: end quietly
            self._idle[patience] = gevent.getcurrent()
            try:
                yield
            finally:
                del self._idle[patience]

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Stop, and do not wait for connections that ask nothing. Called by gunicorn, in the signal's handler."""
        super().handle_exit(sig, frame)
        gevent.spawn(self._end_idle_connections)

    def _end_idle_connections(self) -> None:
        if isinstance(self.app, MasterServer):
            self.app.end_long_answers()
        for patience in list(self._idle):
            gevent.get_hub().loop.run_callback(self._end_if_idle, patience)

    def _end_if_idle(self, patience: gevent.Timeout) -> None:
        # A connection may have got its next request meanwhile; that one is answered.
        if patience in self._idle:
            self._idle[patience].throw(patience)

    def patch(self) -> None:
        """Listen on gevent's sockets. Called by gunicorn after the fork."""
        listeners: list[Any] = self.sockets  # gunicorn's own wrappers, which its stubs call sockets
        self.sockets = [
            gevent.socket.socket(listener.FAMILY, socket.SOCK_STREAM, fileno=listener.sock.detach())
            for listener in listeners
        ]


def _ssl_context(config: Any, _default: Any) -> Any:
    """gevent's kind, because the sockets are gevent's. Called by gunicorn."""
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(config.certfile, config.keyfile)
    return context


def _shorten_grace(_arbiter: Any, worker: Any) -> None:
    worker.cfg.set("graceful_timeout", _REQUESTS_GRACE_SECONDS)


def refuse_several_processes() -> None:
    """Raise ``ConfigError`` if the environment asks for more than one web process, as gunicorn's users may."""
    asked = os.environ.get("WEB_CONCURRENCY", "1")
    if asked != "1":
        raise ConfigError(
            f"WEB_CONCURRENCY={asked}: a master is exactly one web process, because the live state is in its memory"
        )


def configure_logging(level: str) -> None:
    """One line an event on stderr, as gunicorn writes them."""
    logging.basicConfig(
        stream=sys.stderr, level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
