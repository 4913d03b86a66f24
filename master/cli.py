"""The ``fleetpulse`` command with the subcommands ``master`` and ``up``, and every setting of a master.

Subcommands are entry points of the group ``fleetpulse.commands`` and load when they are used: ``fleetpulse worker``
does not load gunicorn, and master and worker do not import each other.
"""

import inspect
import socket
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from functools import partial
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import click

from fleetpulse.master import config
from fleetpulse.master.access.store import TokenFileError, find_owner_secret
from fleetpulse.master.addresses import Address, claim_port, parse_address
from fleetpulse.master.console.command import (
    COMMANDS_GROUP,
    CommandGroup,
    Option,
    Parsed,
    data_dir_option,
    with_options,
)
from fleetpulse.master.console.errors import EXIT_CODES_HELP, ExitCode
from fleetpulse.master.errors import ConfigError
from fleetpulse.master.pki import workers_need_certificates
from fleetpulse.proto.env_file import ServiceCommand
from fleetpulse.proto.policy import PolicyError, TaskPolicy, read_policy

_MIN_AUDIT_FILE_BYTES = 4096
_MIN_QUEUE_BYTES = 1024**2
"""So that the largest request fits."""


class MainGroup(CommandGroup):
    """All commands."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command. Ctrl-C ends in silence where the command itself does not handle it."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(ExitCode.INTERRUPTED)


_HELP = f"""Telemetry and Docker tasks for a fleet of machines.

Every setting is a flag or an environment variable, in this order. The commands that run a service (master, up,
worker, simulate) also read a .env file in this folder.

{EXIT_CODES_HELP}"""


@click.group(cls=MainGroup, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("fleetpulse"), prog_name="fleetpulse")
def fleetpulse() -> None:
    """The group of all commands."""


def main() -> None:
    """The ``fleetpulse`` console script."""
    fleetpulse(prog_name="fleetpulse")


def _parse(parse: Callable[[str, str], Any], variable: str, text: str) -> Any:
    try:
        return parse(variable, text)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error


def _setting(flag: str, variable: str, default: Any, kind: Any, help_text: str, **attributes: Any) -> Option:
    """A flag and an environment variable. ``kind``: click's type, or a function that parses the value."""
    if inspect.isfunction(kind):
        kind = Parsed("text", partial(_parse, kind, variable))
    names = [flag, attributes.pop("name")] if "name" in attributes else [flag]
    shown = {"show_default": True, "show_envvar": True} | attributes
    return click.option(*names, envvar=variable, default=default, type=kind, help=help_text, **shown)


def _parse_url(name: str, text: str) -> str | None:
    return config.parse_http_url(name, text) if text.strip() else None


def _parse_file_size(name: str, text: str) -> int:
    return config.parse_size(name, text, _MIN_AUDIT_FILE_BYTES)


def _parse_queue_size(name: str, text: str) -> int:
    return config.parse_size(name, text, _MIN_QUEUE_BYTES)


_PATH = click.Path(path_type=Path)
_PEM_FILE = click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path)
_POSITIVE = click.IntRange(min=1)
_LIMITS = config.Limits()
_QUEUE = config.QueueLimits()
_SETTINGS = (
    _setting("--http-port", "HTTP_PORT", ":8080", parse_address,
             "Where REST and /metrics listen: PORT, :PORT or HOST:PORT; without a host on 127.0.0.1."),
    _setting("--grpc-port", "GRPC_PORT", ":50051", parse_address,
             "Where workers connect to: PORT, :PORT or HOST:PORT; without a host on 127.0.0.1."),
    _setting("--join-port", "JOIN_PORT", "", str, show_default="the gRPC port + 1",
             help_text="Where new workers get a certificate, if there is a CA: PORT, :PORT or HOST:PORT."),
    _setting("--tls-name", "FLEETPULSE_TLS_NAMES", "", str, name="tls_names", show_default="loopback and the host name",
             help_text="Further host names and addresses by which workers reach this master, with commas."),
    _setting("--certificate-lifetime", "FLEETPULSE_CERTIFICATE_LIFETIME", "30d", config.parse_duration,
             "How long certificates of workers are valid."),
    _setting("--heartbeat-interval", "HEARTBEAT_INTERVAL", "5s", config.parse_duration,
             "How often workers send heartbeats."),
    _setting("--inactivity-timeout", "INACTIVITY_TIMEOUT", "30s", config.parse_duration,
             "How long a worker may be silent before it counts as inactive."),
    _setting("--retention", "FLEETPULSE_RETENTION", "24h", config.parse_duration,
             "How long an inactive worker is shown before it is forgotten."),
    _setting("--max-workers", "FLEETPULSE_MAX_WORKERS", config.LeaseConfig().max_workers, _POSITIVE,
             "How many workers the master accepts."),
    _setting("--max-connections", "FLEETPULSE_MAX_CONNECTIONS", _LIMITS.connections, _POSITIVE,
             "How many connections HTTP clients may have together."),
    _setting("--client-connections", "FLEETPULSE_CLIENT_CONNECTIONS", _LIMITS.client_connections, _POSITIVE,
             "How many connections one HTTP client may have."),
    _setting("--client-rate", "FLEETPULSE_CLIENT_RATE", _LIMITS.client_requests_per_second, click.IntRange(min=0),
             "How many requests a second one HTTP client may make, with bursts of twice as many; 0: any."),
    _setting("--limit-loopback/--no-limit-loopback", "FLEETPULSE_LIMIT_LOOPBACK", False, bool, show_default="off",
             help_text="Whether the limits of one client hold for clients on this machine."),
    _setting("--max-queued-tasks", "FLEETPULSE_MAX_QUEUED_TASKS", _QUEUE.tasks, _POSITIVE,
             "How many tasks may be queued."),
    _setting("--max-queued-size", "FLEETPULSE_MAX_QUEUED_SIZE", "1GiB", _parse_queue_size,
             "How large the requests of the queued tasks may be together."),
    _setting("--token-queued-tasks", "FLEETPULSE_TOKEN_QUEUED_TASKS", _QUEUE.token_tasks, _POSITIVE,
             "How many tasks of one token may be queued."),
    _setting("--token-queued-size", "FLEETPULSE_TOKEN_QUEUED_SIZE", "512MiB", _parse_queue_size,
             "How large the requests of the queued tasks of one token may be together."),
    _setting("--database-url", "DATABASE_URL", None, str, show_default="SQLite in the data directory",
             help_text="Where tasks are stored: sqlite:////folder/file.db or postgresql://user:password@host/database."),
    data_dir_option("Where the master stores its files."),
    _setting("--log-retention", "FLEETPULSE_LOG_RETENTION", "7d", config.parse_duration,
             "How long the logs of an ended task are kept."),
    _setting("--task-retention", "FLEETPULSE_TASK_RETENTION", "90d", config.parse_duration,
             "How long an ended task is kept."),
    _setting("--audit-file-size", "FLEETPULSE_AUDIT_FILE_SIZE", "64MiB", _parse_file_size,
             "At this size a file of the audit trail is full; the newest five full ones are kept."),
    _setting("--placement", "FLEETPULSE_PLACEMENT", config.BEST_FIT, str,
             "The policy that decides where tasks run: the name of an installed one."),
    _setting("--task-policy", "FLEETPULSE_TASK_POLICY", None, _PATH, show_default="built-in limits",
             help_text="A TOML file that says which tasks are accepted. A worker reads one of its own."),
    _setting("--secret-key-file", "FLEETPULSE_SECRET_KEY_FILE", None, _PATH,
             "The key that encrypts the environments of tasks in the database; mode 0600.",
             show_default="secret.key in the data directory"),
    _setting("--grafana-url", "FLEETPULSE_GRAFANA_URL", "", config.parse_link, show_default="none",
             help_text="Where Grafana with the dashboards is, for links from the page."),
    _setting("--history-retention", "FLEETPULSE_HISTORY_RETENTION", "24h", config.parse_retention,
             "How long points of 15 seconds of every reading are kept; off: there is no history."),
    _setting("--history-long-retention", "FLEETPULSE_HISTORY_LONG_RETENTION", "30d", config.parse_retention,
             "How long points of 5 minutes of every reading are kept, or off."),
    _setting("--prometheus-url", "FLEETPULSE_PROMETHEUS_URL", "", _parse_url, show_default="none",
             help_text="A Prometheus that scrapes this master, to ask for history first."),
    _setting("--tokens-file", "FLEETPULSE_TOKENS_FILE", None, _PATH, show_default="tokens.json in the data directory",
             help_text="Where tokens are stored; `fleetpulse token` writes it."),
    _setting("--any-local-user", "FLEETPULSE_ANY_LOCAL_USER", False, bool, is_flag=True, show_default="off",
             help_text="While there is no token, serve every user of this machine, not only the master's own and root. "
                       "For a proxy of another user."),
    _setting("--allowed-host", "FLEETPULSE_ALLOWED_HOSTS", None, str, name="allowed_hosts", multiple=True,
             show_default="none",
             help_text="A further host name of the master, needed while there is no token. May be repeated."),
    _setting("--tls-certificate", "FLEETPULSE_TLS_CERTIFICATE", None, _PEM_FILE, show_default="none",
             help_text="REST over TLS: a PEM file with the certificate and its chain."),
    _setting("--tls-key", "FLEETPULSE_TLS_KEY", None, _PEM_FILE, show_default="none",
             help_text="REST over TLS: the PEM file with the certificate's key."),
    _setting("--insecure-network", "FLEETPULSE_INSECURE_NETWORK", False, bool, is_flag=True, show_default="off",
             help_text="Listen beyond 127.0.0.1 although tokens or TLS are missing: whoever reaches the ports can see "
                       "the fleet, and without tokens start containers on it."),
    _setting("--log-level", "FLEETPULSE_LOG_LEVEL", "info", click.Choice(("debug", "info", "warning", "error")),
             "The lowest level that is logged on stderr."),
)  # fmt: skip
_shell_option = click.option(
    "--shell", "has_shell", is_flag=True,
    help="Open the prompt of `fleetpulse shell` here; the log goes to a file in the data directory.",
)  # fmt: skip


def master_config(settings: dict[str, Any]) -> config.MasterConfig:
    """Parses and checks the settings, and finds free ports. Raises ``click.UsageError``."""
    try:
        lease = config.LeaseConfig(
            settings["heartbeat_interval"], settings["inactivity_timeout"], settings["retention"],
            settings["max_workers"],
        )  # fmt: skip
        http, grpc = (claim_port(f"{name}_PORT", settings[f"{name}_port".lower()]) for name in ("HTTP", "GRPC"))
        result = config.MasterConfig(
            store=_store_config(settings),
            http=http,
            grpc=grpc,
            tls=_tls_config(settings, grpc),
            lease=config.check_lease(lease),
            history=config.HistoryConfig(
                settings["history_retention"], settings["history_long_retention"], settings["prometheus_url"]
            ),
            access=_access_config(settings),
            limits=config.Limits(
                connections=settings["max_connections"],
                client_connections=settings["client_connections"],
                client_requests_per_second=settings["client_rate"],
                limit_loopback=settings["limit_loopback"],
            ),
            queue=config.QueueLimits(
                settings["max_queued_tasks"],
                settings["max_queued_size"],
                settings["token_queued_tasks"],
                settings["token_queued_size"],
            ),
            log_level=settings["log_level"],
            audit_file_bytes=settings["audit_file_size"],
            grafana_url=settings["grafana_url"],
            placement=_placement(settings["placement"]),
            task_policy=TaskPolicy() if settings["task_policy"] is None else read_policy(settings["task_policy"]),
        )
        has_tokens = bool(result.token_file.read())
        return config.check_exposure(result, has_tokens=has_tokens, has_worker_tls=result.tls is not None)
    except (ConfigError, PolicyError, TokenFileError) as error:
        raise click.UsageError(str(error)) from error


def _access_config(settings: dict[str, Any]) -> config.AccessConfig:
    certificate, key = settings["tls_certificate"], settings["tls_key"]
    if (certificate is None) != (key is None):
        raise ConfigError("--tls-certificate and --tls-key go together, and one of them is missing")
    tls = None if certificate is None else config.check_tls(config.TlsFiles(certificate, key))
    return config.AccessConfig(
        settings["tokens_file"], settings["allowed_hosts"], tls, settings["insecure_network"],
        settings["any_local_user"],
    )  # fmt: skip


def _tls_config(settings: dict[str, Any], grpc: Address) -> config.TlsConfig | None:
    names = config.parse_names("FLEETPULSE_TLS_NAMES", settings["tls_names"])
    text = settings["join_port"]
    join = parse_address("JOIN_PORT", text) if text else Address(grpc.host, grpc.port + 1)
    if not workers_need_certificates(settings["data_dir"]):
        return None
    if join.port > 65535:
        raise ConfigError(f"JOIN_PORT: there is no port after GRPC_PORT={grpc.port}; give one")
    if text.strip().lstrip(":").isdigit():
        join = join._replace(host=grpc.host)
    names = config.tls_names(grpc.host, socket.gethostname(), names)
    return config.TlsConfig(claim_port("JOIN_PORT", join), names, settings["certificate_lifetime"])


def _placement(name: str) -> str:
    if name != config.BEST_FIT:
        from fleetpulse.master.tasks.placement import POLICIES_GROUP, policy_named  # noqa: PLC0415 - rarely needed

        policy_named(name, entry_points(group=POLICIES_GROUP))
    return name


def _store_config(settings: dict[str, Any]) -> config.StoreConfig:
    database_url, key_file = settings["database_url"], settings["secret_key_file"]
    if database_url is not None:
        from fleetpulse.master.store.database import parse_database_url  # noqa: PLC0415 - heavy, and rarely needed

        parse_database_url(database_url)
    if key_file is not None:
        from fleetpulse.master.store.encryption import read_key_file  # noqa: PLC0415 - heavy, and rarely needed

        read_key_file(key_file)
    return config.StoreConfig(
        data_dir=settings["data_dir"],
        database_url=database_url,
        secret_key_file=key_file,
        log_retention_seconds=settings["log_retention"],
        task_retention_seconds=settings["task_retention"],
    )


def _master_options(command: Any) -> Any:
    return with_options(command, _SETTINGS)


@click.command("master", cls=ServiceCommand)
@_master_options
@_shell_option
def master_command(has_shell: bool, **settings: Any) -> None:
    """Run the master: REST, /metrics and the port that workers connect to."""
    from fleetpulse.master.server import MasterServer, refuse_several_processes  # noqa: PLC0415 - heavy
    from fleetpulse.proto.logs import configure_logging  # noqa: PLC0415 - heavy

    try:
        refuse_several_processes()
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    if has_shell:
        _supervise(settings, has_shell=True, has_worker=False)
    result = master_config(settings)
    configure_logging(result.log_level)
    MasterServer(result).run()


class _UpCommand(ServiceCommand):
    """Its ``.env`` has the settings of the worker too, which its processes get."""

    def known_settings(self) -> AbstractSet[str]:
        """Returns the environment variables of this command and of ``worker``."""
        (worker,) = entry_points(group=COMMANDS_GROUP, name="worker")
        command: ServiceCommand = worker.load()
        return super().known_settings() | command.known_settings()


@click.command("up", cls=_UpCommand)
@_master_options
@click.option("--worker-id", envvar="FLEETPULSE_WORKER_ID", show_envvar=True, help="Id of this machine's worker.")
@_shell_option
def up_command(worker_id: str | None, has_shell: bool, **settings: Any) -> None:
    """Run a master and this machine's worker together; Ctrl-C stops both."""
    _supervise(settings, worker_id, has_shell=has_shell)


def _supervise(
    settings: dict[str, Any], worker_id: str | None = None, *, has_shell: bool, has_worker: bool = True
) -> None:
    from fleetpulse.master.up import Supervisor  # noqa: PLC0415 - only needed here

    result = master_config(settings)
    is_open = not result.is_exposed and not result.token_file.requires_auth()
    prompt = _prompt(settings["data_dir"]) if has_shell else None
    supervisor = Supervisor(
        result, child_environment(settings, result), worker_id,
        echo=click.echo, is_open=is_open, has_worker=has_worker, prompt=prompt,
    )  # fmt: skip
    raise SystemExit(supervisor.run())


def _prompt(data_dir: Path) -> Callable[[str], int]:
    from fleetpulse.master.console.shell import run_shell  # noqa: PLC0415 - only needed with --shell

    return lambda url: run_shell(url, data_dir, token=find_owner_secret(data_dir))


def child_environment(settings: dict[str, Any], result: config.MasterConfig) -> dict[str, str]:
    """Every setting of a master as an environment variable, with the ports that were found free.

    An empty variable is as good as none. Flags would show passwords to everybody on the machine.
    """
    found: dict[str, Any] = {
        "http_port": result.http,
        "grpc_port": result.grpc,
        "join_port": result.tls and result.tls.join,
    }
    found |= {name: "off" for name in ("history_retention", "history_long_retention") if settings[name] is None}
    values = {**settings, **found, "allowed_hosts": " ".join(settings["allowed_hosts"])}
    options = {option.envvar: values[option.name or ""] for option in master_command.params if option.envvar}
    return {str(variable): "" if value is None else str(value) for variable, value in options.items()}
