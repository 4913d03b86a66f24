"""gunicorn as FleetPulse runs it: an arbiter that restarts the one gevent process in which the master lives."""

import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker

from fleetpulse.master.config import MasterConfig, check_tls
from fleetpulse.master.errors import ConfigError, StoreUnavailable

if TYPE_CHECKING:
    import ssl

    from fleetpulse.master.app import Master
    from fleetpulse.master.edge.door import ConnectionLimiter

_LOGGER = logging.getLogger(__name__)

_IDLE_SECONDS = 20
_CONNECTIONS_BESIDE = 1000
"""Those that are being told that there is no room, and those that were cut and are not closed yet."""

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
            "worker_class": "fleetpulse.master.server.WebProcess",
            # More than the door lets in, so that the next one is answered and not left waiting.
            "worker_connections": self.config.limits.connections + _CONNECTIONS_BESIDE,
            "keepalive": _IDLE_SECONDS,
            # The arbiter's limit; the process itself gives requests less, so that it has time to stop the rest.
            "graceful_timeout": _STOP_TIMEOUT_SECONDS,
            "timeout": 30,
            "control_socket_disable": True,
            # No client is believed what it says of its address, its scheme or the path, not even on this machine.
            "forwarded_allow_ips": "",
            "forwarder_headers": "",
            "loglevel": self.config.log_level,
            "proc_name": "fleetpulse-master",
            "post_fork": self._after_fork,
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
        from fleetpulse.master.app import Master  # noqa: PLC0415 - grpc must not be loaded before the fork

        return Master(self.config)

    def _after_fork(self, _arbiter: Any, worker: Any) -> None:
        worker.cfg.set("graceful_timeout", _REQUESTS_GRACE_SECONDS)

    def _on_worker_exit(self, _arbiter: Any, _worker: Any) -> None:
        # On SIGTERM gunicorn waits for its requests only; nothing else would end the rest.
        self.stop_master()

    def door(self) -> "ConnectionLimiter":
        """Who may connect to the master. Called by the worker in the web process, once."""
        assert self._master is not None  # nosec B101 # for the type checker
        return self._master.door(_IDLE_SECONDS)

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
        """SIGHUP starts the web process anew, when the old one has given everything up. Called by gunicorn.

        Not with a certificate with which the new one could not start.
        """
        server: Any = self.app
        try:
            if (files := server.config.access.tls) is not None:
                check_tls(files)
        except ConfigError as error:
            _LOGGER.error("The web process stays, with the certificate that it has: %s", error)  # noqa: TRY400 - as above
            return
        _LOGGER.info("The web process starts anew")
        self.kill_workers(signal.SIGTERM)

    def handle_ttin(self) -> None:
        """SIGTTIN, SIGTTOU and SIGUSR2 want other numbers of processes, and are refused. Called by gunicorn."""
        _LOGGER.warning("A master is exactly one web process")

    handle_ttou = handle_usr2 = handle_ttin


class WebProcess(Worker):
    """The web process as the arbiter knows it, which stays small: what serves there is loaded after the fork."""

    def init_process(self) -> None:
        """Serve until the end. Called by gunicorn in the web process."""
        from fleetpulse.master.web import MasterWorker  # noqa: PLC0415 - see above

        worker = MasterWorker(self.age, self.ppid, self.sockets, self.app, self.timeout, self.cfg, self.log)
        worker.pid = self.pid
        # The file by which the arbiter sees that the process lives.
        worker.tmp.close()
        worker.tmp = self.tmp
        try:
            worker.init_process()
        finally:
            self.booted = worker.booted


def _ssl_context(config: Any, _default: Any) -> "ssl.SSLContext":
    """Called by gunicorn in the web process."""
    from fleetpulse.master.web import ssl_context  # noqa: PLC0415 - see above

    return ssl_context(config)


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
