"""gunicorn as FleetPulse runs it: an arbiter that restarts one gevent process, in which the master lives."""

import logging
import os
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.workers.base import Worker

from fleetpulse.master.addresses import listen_addresses
from fleetpulse.master.config import MasterConfig, check_tls
from fleetpulse.master.errors import ConfigError, StoreUnavailable
from fleetpulse.proto.logs import LineFormatter

if TYPE_CHECKING:
    import ssl

    from fleetpulse.master.app import Master
    from fleetpulse.master.edge.connections import ConnectionLimiter

_LOGGER = logging.getLogger(__name__)

_SPARE_CONNECTIONS = 1000
"""Connections that are being refused, and those that were cut and are not closed yet."""

_REQUESTS_GRACE_SECONDS = 3
_STOP_TIMEOUT_SECONDS = 9


class MasterServer(BaseApplication):
    """``MasterServer(config).run()`` serves until SIGTERM or SIGINT, then exits the process."""

    def __init__(self, config: MasterConfig) -> None:
        self.config = config
        self._master: Master | None = None
        super().__init__()

    def load_config(self) -> None:
        """Sets gunicorn's settings. Called by gunicorn."""
        settings: dict[str, Any] = {
            "bind": [str(address) for address in listen_addresses(self.config.http)],
            "workers": 1,
            "worker_class": "fleetpulse.master.server.WebProcess",
            "logger_class": ServerLogger,
            # More than the limiter admits, so that the next connection is refused with an answer.
            "worker_connections": self.config.limits.connections + _SPARE_CONNECTIONS,
            "keepalive": int(self.config.limits.idle_seconds),
            # The arbiter's limit; the process itself gives requests less, so that it has time to stop the rest.
            "graceful_timeout": _STOP_TIMEOUT_SECONDS,
            "timeout": 30,
            "control_socket_disable": True,
            # gunicorn's own choice fails where no folder for temporary files is writable.
            "worker_tmp_dir": _temporary_folder(self.config.store.data_dir),
            # Headers that claim another address, scheme or path are ignored, also from this machine.
            "forwarded_allow_ips": "",
            "forwarder_headers": "",
            "loglevel": self.config.log_level,
            "proc_name": "fleetpulse-master",
            "post_fork": lambda _arbiter, worker: worker.cfg.set("graceful_timeout", _REQUESTS_GRACE_SECONDS),
            # On SIGTERM gunicorn waits for requests only; nothing else would stop the rest.
            "worker_exit": lambda _arbiter, _worker: self.stop_master(),
        }
        if self.config.access.tls is not None:
            certificate, key = self.config.access.tls
            settings |= {"certfile": str(certificate), "keyfile": str(key), "ssl_context": _ssl_context}
        for name, value in settings.items():
            self.cfg.set(name, value)

    def run(self) -> None:
        """Serves. Never returns."""
        # Before grpc is loaded: its core logs every failed handshake, in a format of its own.
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        MasterArbiter(self).run()

    def load(self) -> Any:
        """Builds and starts the master. Called by gunicorn in the web process."""
        try:
            self._master = self.build()
            self._master.start()
        except (ConfigError, StoreUnavailable) as error:
            _LOGGER.error("%s", error)  # noqa: TRY400 - the message says all, a traceback nothing more
            raise SystemExit(Arbiter.APP_LOAD_ERROR) from error
        return self._master.wsgi

    def build(self) -> "Master":
        """Returns the master, not started, in the web process. Override to add to it."""
        from fleetpulse.master.app import Master  # noqa: PLC0415 - grpc must not be loaded before the fork

        return Master(self.config)

    def limiter(self) -> "ConnectionLimiter":
        """Returns the limiter of the HTTP port, once the master is loaded. Called by the worker."""
        assert self._master is not None  # nosec B101 # for the type checker
        return self._master.connection_limiter

    def begin_stop(self) -> None:
        """Ends what would keep the process waiting. Called by the worker when a stop begins."""
        if self._master is not None:
            self._master.begin_stop()

    def stop_master(self) -> None:
        """Stops the master, in the web process. Override to stop what ``build`` added."""
        if self._master is not None:
            self._master.stop()


class MasterArbiter(Arbiter):
    """gunicorn's arbiter for exactly one web process: two would need the same gRPC port."""

    def handle_hup(self) -> None:
        """SIGHUP replaces the web process, once the old one has released everything. Called by gunicorn.

        Does nothing if the new process could not load the TLS certificate.
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
        """Ignores SIGTTIN, SIGTTOU and SIGUSR2, which change the number of processes. Called by gunicorn."""
        _LOGGER.warning("A master is exactly one web process")

    handle_ttou = handle_usr2 = handle_ttin


class WebProcess(Worker):
    """The web process as the arbiter sees it. The arbiter stays small: what serves is loaded after the fork."""

    def init_process(self) -> None:
        """Serves until the end. Called by gunicorn in the web process."""
        from fleetpulse.master.web import MasterWorker  # noqa: PLC0415 - see above

        app: Any = self.app
        worker = MasterWorker(
            self.age, self.ppid, self.sockets, app, self.timeout, self.cfg, self.log,
            limiter=app.limiter, on_stop=app.begin_stop,
        )  # fmt: skip
        worker.pid = self.pid
        # The file by which the arbiter sees that the process lives.
        worker.tmp.close()
        worker.tmp = self.tmp
        try:
            worker.init_process()
        finally:
            self.booted = worker.booted


class ServerLogger(Logger):
    """gunicorn's logger, in the format of the other log lines."""

    def setup(self, cfg: Any) -> None:
        """Called by gunicorn at the start and after a reload."""
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(LineFormatter())


def _temporary_folder(data_dir: Path) -> str | None:
    """For the file by which the arbiter sees that the web process lives; ``None``: where the system has such files."""
    try:
        tempfile.gettempdir()
    except OSError:
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{data_dir}: {error.strerror}, and there is no folder for temporary files") from error
        return str(data_dir)
    return None


def _ssl_context(config: Any, _default: Any) -> "ssl.SSLContext":
    """Called by gunicorn in the web process."""
    from fleetpulse.master.web import ssl_context  # noqa: PLC0415 - see above

    return ssl_context(config)


def refuse_several_processes() -> None:
    """Raises ``ConfigError`` if ``WEB_CONCURRENCY``, a variable of gunicorn, asks for more than one web process."""
    asked = os.environ.get("WEB_CONCURRENCY", "1")
    if asked != "1":
        raise ConfigError(
            f"WEB_CONCURRENCY={asked}: a master is exactly one web process, because the live state is in its memory"
        )
