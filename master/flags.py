"""The flags of a master, by theme. ``master.cli`` makes the settings of what they give."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fleetpulse.master import config
from fleetpulse.master.console.options import data_dir_option, with_options

LOG_LEVELS = ("debug", "info", "warning", "error")

_ADDRESSES = (
    click.option("--http-port", envvar="HTTP_PORT", default=":8080", show_default=True, show_envvar=True,
                 help="Where REST and /metrics listen: PORT, :PORT or HOST:PORT; without a host on 127.0.0.1."),
    click.option("--grpc-port", envvar="GRPC_PORT", default=":50051", show_default=True, show_envvar=True,
                 help="Where workers connect to: PORT, :PORT or HOST:PORT; without a host on 127.0.0.1."),
    click.option("--join-port", envvar="JOIN_PORT", default="", show_default="the gRPC port + 1", show_envvar=True,
                 help="Where new workers get a certificate, if there is a CA: PORT, :PORT or HOST:PORT."),
    click.option("--tls-name", "tls_names", envvar="FLEETPULSE_TLS_NAMES", default="", show_envvar=True,
                 show_default="loopback and the host name",
                 help="Further host names and addresses by which workers reach this master, with commas."),
    click.option("--certificate-lifetime", envvar="FLEETPULSE_CERTIFICATE_LIFETIME", default="30d",
                 show_default=True, show_envvar=True, help="For how long certificates of workers are good."),
)  # fmt: skip
_TERMS = (
    click.option("--heartbeat-interval", envvar="HEARTBEAT_INTERVAL", default="5s", show_default=True,
                 show_envvar=True, help="How often workers beat."),
    click.option("--inactivity-timeout", envvar="INACTIVITY_TIMEOUT", default="30s", show_default=True,
                 show_envvar=True, help="For how long a worker may be silent before it counts as inactive."),
    click.option("--retention", envvar="FLEETPULSE_RETENTION", default="24h", show_default=True,
                 show_envvar=True, help="For how long an inactive worker is shown before it is forgotten."),
    click.option("--max-workers", envvar="FLEETPULSE_MAX_WORKERS", default=config.LeaseConfig().max_workers,
                 type=click.IntRange(min=1), show_default=True, show_envvar=True,
                 help="How many workers the master takes on."),
)  # fmt: skip
_LIMITS = (
    click.option("--max-connections", envvar="FLEETPULSE_MAX_CONNECTIONS", default=config.Limits().connections,
                 type=click.IntRange(min=1), show_default=True, show_envvar=True,
                 help="How many connections HTTP clients may have together."),
    click.option("--client-connections", envvar="FLEETPULSE_CLIENT_CONNECTIONS", show_envvar=True,
                 default=config.Limits().client_connections, type=click.IntRange(min=1), show_default=True,
                 help="How many connections one HTTP client may have."),
    click.option("--client-rate", envvar="FLEETPULSE_CLIENT_RATE", show_envvar=True,
                 default=config.Limits().client_requests_per_second, type=click.IntRange(min=0), show_default=True,
                 help="How many requests a second one HTTP client may make, with bursts of twice as many; 0: any."),
    click.option("--limit-loopback/--no-limit-loopback", envvar="FLEETPULSE_LIMIT_LOOPBACK", default=False,
                 show_default="off", show_envvar=True,
                 help="Whether the limits of one client hold for clients on this machine."),
)  # fmt: skip
_STORE = (
    click.option("--database-url", envvar="DATABASE_URL", show_envvar=True, default=None,
                 show_default="SQLite in the data directory",
                 help="Where tasks are kept: sqlite:////folder/file.db or postgresql://user:password@host/database."),
    data_dir_option("Where the master keeps what it must not forget."),
    click.option("--log-retention", envvar="FLEETPULSE_LOG_RETENTION", default="7d", show_default=True,
                 show_envvar=True, help="For how long the logs of an ended task are kept."),
    click.option("--task-retention", envvar="FLEETPULSE_TASK_RETENTION", default="90d", show_default=True,
                 show_envvar=True, help="For how long an ended task is kept."),
    click.option("--audit-file-size", envvar="FLEETPULSE_AUDIT_FILE_SIZE", default="64MiB", show_default=True,
                 show_envvar=True,
                 help="At this size a file of the audit trail is full; the newest five full ones are kept."),
)  # fmt: skip
_TASKS = (
    click.option("--placement", envvar="FLEETPULSE_PLACEMENT", default="best-fit", show_default=True,
                 show_envvar=True, help="Which policy decides where tasks run: the name of an installed one."),
    click.option("--task-policy", envvar="FLEETPULSE_TASK_POLICY", show_envvar=True,
                 type=click.Path(path_type=Path), default=None, show_default="built-in limits",
                 help="A TOML file that says which tasks are taken. A worker reads one of its own."),
    click.option("--secret-key-file", envvar="FLEETPULSE_SECRET_KEY_FILE", show_envvar=True,
                 type=click.Path(path_type=Path), default=None, show_default="secret.key in the data directory",
                 help="What seals the values of tasks' environments in the database; mode 0600."),
)  # fmt: skip
_HISTORY = (
    click.option("--grafana-url", envvar="FLEETPULSE_GRAFANA_URL", default="", show_default="none",
                 show_envvar=True, help="Where Grafana with the dashboards is, for links from the page."),
    click.option("--history-retention", envvar="FLEETPULSE_HISTORY_RETENTION", default="24h", show_default=True,
                 show_envvar=True,
                 help="For how long points of 15 seconds are kept of every reading; off: there is no history."),
    click.option("--history-long-retention", envvar="FLEETPULSE_HISTORY_LONG_RETENTION", default="30d",
                 show_default=True, show_envvar=True,
                 help="For how long points of 5 minutes are kept of every reading, or off."),
    click.option("--prometheus-url", envvar="FLEETPULSE_PROMETHEUS_URL", default="", show_default="none",
                 show_envvar=True, help="A Prometheus that scrapes this master, to ask for history first."),
)  # fmt: skip
_ACCESS = (
    click.option("--tokens-file", envvar="FLEETPULSE_TOKENS_FILE", default=None, show_envvar=True,
                 show_default="tokens.json in the data directory", type=click.Path(path_type=Path),
                 help="Where tokens are kept; `fleetpulse token` writes it."),
    click.option("--allowed-host", "allowed_hosts", envvar="FLEETPULSE_ALLOWED_HOSTS", multiple=True,
                 show_default="none", show_envvar=True,
                 help="A name that the master goes by, beside this machine's, while no token is made. "
                      "May be repeated."),
    click.option("--tls-certificate", envvar="FLEETPULSE_TLS_CERTIFICATE", default=None, show_envvar=True,
                 show_default="none",
                 type=click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path),
                 help="REST over TLS: a PEM file with the certificate and its chain."),
    click.option("--tls-key", envvar="FLEETPULSE_TLS_KEY", default=None, show_envvar=True, show_default="none",
                 type=click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path),
                 help="REST over TLS: the PEM file with the certificate's key."),
    click.option("--insecure-network", envvar="FLEETPULSE_INSECURE_NETWORK", is_flag=True, show_envvar=True,
                 show_default="off",
                 help="Listen beyond 127.0.0.1 though tokens or TLS are missing: whoever reaches the ports may "
                      "look at the fleet, and without tokens start containers on it."),
)  # fmt: skip
_LOG = (
    click.option("--log-level", envvar="FLEETPULSE_LOG_LEVEL", default="info", show_default=True,
                 show_envvar=True, type=click.Choice(LOG_LEVELS), help="What is worth a line on stderr."),
)  # fmt: skip


def master_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The settings of a master, for every command that starts one."""
    return with_options(command, (*_ADDRESSES, *_TERMS, *_LIMITS, *_STORE, *_TASKS, *_HISTORY, *_ACCESS, *_LOG))
