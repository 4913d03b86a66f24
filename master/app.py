"""The composition root of the web process: builds, starts and stops every object of a master."""

import logging
import os
import platform
import resource
import signal
import socket
import sys
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import falcon

from fleetpulse.master.access.peers import Peers, peer_check, trusted_network
from fleetpulse.master.access.store import SessionStore, TokenStore, owner_secret
from fleetpulse.master.addresses import Clients
from fleetpulse.master.api import middleware, problems
from fleetpulse.master.api.access import STRANGER, TASKS_STRANGER, AccessMiddleware, SessionResource, is_own_user
from fleetpulse.master.api.audit import AuditResource
from fleetpulse.master.api.history import WorkerHistory
from fleetpulse.master.api.middleware import AuditMiddleware
from fleetpulse.master.api.operations import add_routes
from fleetpulse.master.api.page import page_resources
from fleetpulse.master.api.reference import reference_resources
from fleetpulse.master.api.routes import ROUTES
from fleetpulse.master.api.subscribers import Subscribers
from fleetpulse.master.api.tasks import task_resources
from fleetpulse.master.api.telemetry_stream import create_telemetry_stream
from fleetpulse.master.api.views import FleetViews
from fleetpulse.master.api.workers import HealthResource, worker_resources
from fleetpulse.master.audit.entries import FILE_NAME
from fleetpulse.master.audit.trail import AuditTrail
from fleetpulse.master.config import HistoryConfig, MasterConfig, StoreConfig, TlsConfig
from fleetpulse.master.edge.connections import ConnectionLimiter
from fleetpulse.master.errors import ConfigError
from fleetpulse.master.garbage import GarbageCollector
from fleetpulse.master.history.recorder import Recorder
from fleetpulse.master.history.series_writer import Tier
from fleetpulse.master.history.service import HistoryService
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.metrics.exposition import FleetExposition, MetricsResource
from fleetpulse.master.rpc.peers import TASKS_ADVICE, LocalWorkers
from fleetpulse.master.rpc.server import RpcServer
from fleetpulse.master.store.batch import Retention
from fleetpulse.master.store.database import default_url
from fleetpulse.master.store.encryption import read_key_file, read_or_create_key_file
from fleetpulse.master.store.store import SqlTaskStore
from fleetpulse.master.tasks.placement import POLICIES_GROUP, policy_named
from fleetpulse.master.tasks.service import TaskService
from fleetpulse.master.telemetry.lazy_view import LazyView
from fleetpulse.master.telemetry.manager import TelemetryManager

if TYPE_CHECKING:
    from fleetpulse.master.pki.authority import Authority
    from fleetpulse.master.prometheus import PrometheusHistory

_LOGGER = logging.getLogger(__name__)

_PROMETHEUS_SECONDS = 8.0
"""Its time limit for a history query; then the store answers."""

_SPARE_STREAMS = 500
"""Streams beyond one per worker: those not registered yet, and old ones about to be superseded."""


class Master:
    """A whole master except for the web server. Built, started and stopped on the gevent hub, after any fork."""

    def __init__(self, config: MasterConfig) -> None:
        self.instruments = instruments = Instruments()
        instruments.build_info.labels(version("fleetpulse"), platform.python_version()).set(1)
        self._audit = AuditTrail(config.store.data_dir / FILE_NAME, instruments.audit, config.audit_file_bytes)
        exposition, views = FleetExposition(self._has_task), FleetViews()
        exposition.budget.report_to(instruments.exposition.show_names_left_out)
        exposition.custom.report_to(instruments.exposition.custom_samples_dropped)
        self._views: tuple[LazyView, ...] = (exposition, views)
        self.telemetry = TelemetryManager(config.lease, instruments, observers=self._views)
        self._garbage = GarbageCollector(lambda: self.telemetry.worker_count)
        self._store = open_store(config.store, instruments)
        policy = policy_named(config.placement, entry_points(group=POLICIES_GROUP))
        self.tasks = TaskService(
            self._store,
            self.telemetry,
            instruments,
            policy=policy,
            task_policy=config.task_policy,
            queue_limits=config.queue,
        )
        self.telemetry.add_observer(self.tasks.reports)
        tiers = history_tiers(config.history)
        longest = config.lease.inactivity_timeout_seconds
        self._recorder = Recorder(self._store.history, tiers, instruments, longest, self.telemetry.knows_worker)
        if tiers:
            self.telemetry.set_update_callback(self._recorder.record)
        url = config.history.prometheus_url
        self._prometheus = None if url is None else open_prometheus(url)
        history = HistoryService(
            self._store.history, self._recorder, tiers, instruments, self.telemetry.knows_worker, self._prometheus
        )
        self._rpc = RpcServer(
            config.grpc, self.telemetry, self.tasks.reports, instruments,
            config.lease.max_workers + _SPARE_STREAMS, self._audit.record,
            None if config.tls is None else open_authority(config.tls, config.store.data_dir), config.tls,
        )  # fmt: skip
        self._rpc.local_workers = workers = local_workers(config)
        checks = {
            "telemetry": self.telemetry.health_error,
            "grpc": self._rpc.health_error,
            "store": self._store.health_error,
            "tasks": self.tasks.health_error,
            "history": self._recorder.health_error,
        }
        health = HealthResource(checks, version("fleetpulse"), {"grpc": self._rpc.overload})
        self._subscribers = Subscribers(
            clients=Clients(limits_loopback=config.limits.limit_loopback), limit_per_client=config.limits.client_readers
        )
        self.wsgi = create_wsgi(
            HttpServices(
                self.telemetry, self.tasks, history, self._audit, create_access(config), views, exposition,
                instruments, health, self._subscribers, config.grafana_url,
            )
        )  # fmt: skip
        clients = local_clients(config)
        self.connection_limiter = ConnectionLimiter(config.limits, instruments.http, self._audit.record, clients)
        self._peer_checks = (clients, None if workers is None else workers.check)

    def _has_task(self, worker_id: str, task_id: str, attempt: int) -> bool:
        # The exposition observes telemetry, which the tasks need, so it is built before them.
        return self.tasks.is_assigned(worker_id, task_id, attempt)

    def start(self) -> None:
        """Opens the store, checks for silent workers, accepts calls. Raises ``ConfigError``, ``StoreUnavailable``."""
        self._garbage.start()
        _switch_threads_often()
        _raise_open_files_limit()
        # Freed at once: from then on glibc reuses the blocks of large answers instead of mapping each anew.
        bytes(16 * 1024**2)
        self._audit.start()
        self.telemetry.start()
        for view in self._views:
            view.start()
        self._store.start()
        self.tasks.start()
        self._recorder.start()
        self._rpc.start()

    def begin_stop(self) -> None:
        """Ends endless answers and cuts idle connections, so that gunicorn does not wait for them. Does not wait."""
        self._subscribers.close()
        self.connection_limiter.cut_idle()

    def stop(self) -> None:
        """Ends every stream and every greenlet. Takes a few seconds at most."""
        self._rpc.stop()
        self.tasks.stop()
        self.telemetry.shutdown()
        self._recorder.stop()
        if self._prometheus is not None:
            self._prometheus.close()
        for view in self._views:
            view.stop()
        self._store.stop()
        self._audit.stop()
        self._garbage.stop()
        for check in self._peer_checks:
            if check is not None:
                check.close()
        _LOGGER.info("the master has stopped")


def history_tiers(config: HistoryConfig) -> tuple[Tier, ...]:
    """Returns the kept tiers: points of 15 seconds in rows of 15 minutes, and of 5 minutes in rows of 3 hours."""
    if config.short_seconds is None:
        return ()
    short = Tier(15, 60, config.short_seconds)
    return (short,) if config.long_seconds is None else (short, Tier(300, 36, config.long_seconds))


def open_store(config: StoreConfig, instruments: Instruments) -> SqlTaskStore:
    """Opens the configured store. Raises ``ConfigError``."""
    key_file = config.secret_key_file
    return SqlTaskStore(
        config.database_url or default_url(config.data_dir),
        read_or_create_key_file(config.data_dir) if key_file is None else read_key_file(key_file),
        instruments.store,
        retention=Retention(config.log_retention_seconds, config.task_retention_seconds),
        on_replaced=_restart,
    )


class Access(NamedTuple):
    """Authorization, and the page's sessions."""

    middleware: AccessMiddleware
    sessions: SessionStore


def create_access(config: MasterConfig) -> Access:
    """Reads the tokens. Raises ``ConfigError`` when the data directory cannot be written."""
    data_dir = config.store.data_dir
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = owner_secret(data_dir)
    except OSError as error:
        raise ConfigError(f"FLEETPULSE_DATA_DIR={data_dir}: cannot be written: {error.strerror or error}") from error
    tokens = TokenStore(config.token_file, owner, always_requires_auth=config.is_exposed)
    if not tokens.auth_required:
        who = f"whoever reaches {config.http}" if config.access.serves_anybody else "its own user and root"
        _LOGGER.warning("%s may use all of this master; `fleetpulse token create NAME` closes it", who)
    elif not config.is_exposed and not config.token_file.read():
        _LOGGER.warning(
            "there are no tokens, and this master was closed by one: `fleetpulse token create NAME` makes another, "
            "`fleetpulse token open` opens it"
        )
    sessions = SessionStore(tokens)
    names = (socket.gethostname(), config.http.host, *config.access.names)
    stranger = TASKS_STRANGER if config.access.is_network_trusted else STRANGER
    return Access(AccessMiddleware(tokens, sessions, ROUTES, names, is_own_user, stranger), sessions)


def local_clients(config: MasterConfig) -> Peers | None:
    """Returns the check of who is on the other end while there is no token; ``None``: everybody is served."""
    if config.access.is_network_trusted:
        return trusted_network()
    if config.access.serves_anybody:
        return None
    if (check := peer_check()) is None:
        _LOGGER.warning(
            "this system does not tell whose a connection is: while there is no token, every user of this machine may "
            "use this master over HTTP, and every user may connect as a worker until `fleetpulse ca init`"
        )
    return check


def local_workers(config: MasterConfig) -> LocalWorkers | None:
    """Returns the check of workers without a certificate; ``None``: none is needed or possible."""
    if config.tls is not None:
        return None
    if config.access.is_network_trusted:
        network = trusted_network()
        return None if network is None else LocalWorkers(network, config.grpc, lambda: True, TASKS_ADVICE)
    if (check := peer_check()) is None:
        return None
    # Of its own: grpc's thread reads the tokens by itself.
    tokens = TokenStore(config.token_file, always_requires_auth=not config.access.serves_any_local_user)
    return LocalWorkers(check, config.grpc, lambda: tokens.auth_required)


def open_prometheus(url: str) -> "PrometheusHistory":
    """Returns a source of history. Does not connect yet."""
    from fleetpulse.master.prometheus import (  # noqa: PLC0415 - heavy, and mostly not needed
        PrometheusClient,
        PrometheusHistory,
    )

    return PrometheusHistory(PrometheusClient(url, _PROMETHEUS_SECONDS))


def open_authority(config: TlsConfig, data_dir: Path) -> "Authority":
    """Reads the CA. Raises ``ConfigError``."""
    from fleetpulse.master.pki.authority import Authority  # noqa: PLC0415 - heavy, and mostly not needed

    return Authority(data_dir, config.certificate_lifetime_seconds)


class HttpServices(NamedTuple):
    """Everything that answers HTTP requests."""

    telemetry: TelemetryManager
    tasks: TaskService
    history: HistoryService
    audit: AuditTrail
    access: Access
    views: FleetViews
    exposition: FleetExposition
    instruments: Instruments
    health: HealthResource
    subscribers: Subscribers
    grafana_url: str | None = None


def create_wsgi(services: HttpServices) -> "falcon.App[Any, Any]":
    """Returns the Falcon app with every path of a master."""
    telemetry, views, instruments, subscribers = (
        services.telemetry, services.views, services.instruments, services.subscribers,
    )  # fmt: skip
    app: falcon.App[Any, Any] = falcon.App(
        # Outermost first: observations include the compression, and audit entries the final status.
        middleware=[
            middleware.RequestMetrics(instruments),
            AuditMiddleware(services.audit.record, ROUTES),
            middleware.Fairness(),
            services.access.middleware,
            middleware.ExactPaths(),
            middleware.Compression(),
        ]
    )
    problems.install(app, instruments.http.reject)
    resource_by_path = {
        **worker_resources(telemetry, views, services.health, services.tasks.ask_for_cores),
        **reference_resources(ROUTES, version("fleetpulse")),
        "/api/audit": AuditResource(services.audit.read),
        "/telemetry/{worker_id}/history": WorkerHistory(services.history),
        "/telemetry/stream": create_telemetry_stream(telemetry, views, instruments.stream, subscribers),
        **task_resources(services.tasks, subscribers),
        "/api/session": SessionResource(services.access.sessions),
        "/metrics": MetricsResource(services.exposition, instruments),
        **page_resources(telemetry, instruments, version("fleetpulse"), services.grafana_url),
    }
    add_routes(app, ROUTES, resource_by_path)
    return app


def _restart() -> None:
    """Ends this process in order; gunicorn then starts one that reads the store anew, or is refused."""
    os.kill(os.getpid(), signal.SIGTERM)


def _switch_threads_often() -> None:
    """Returns the interpreter to the hub soon when a thread computes, as the scheduler's does.

    With Python's default the hub would wait 5 ms each time it has waited for a socket.
    """
    sys.setswitchinterval(0.0001)


def _raise_open_files_limit() -> None:
    """Every worker is a connection, so take what the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
