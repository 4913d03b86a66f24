"""The ``fleetpulse`` command, and those of its subcommands that belong to the master.

Subcommands are entry points of the group ``fleetpulse.commands`` and are loaded when they are asked for: ``fleetpulse
worker`` must not pay for gunicorn, and master and worker do not import each other.
"""

import socket
from collections.abc import Callable
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import click
import platformdirs
from dotenv import load_dotenv

from master import config
from master.access.owner import find_owner_secret
from master.access.token_file import TokenFile, TokenFileError
from master.console.errors import EXIT_CODES, INTERRUPTED
from master.errors import ConfigError
from master.pki import workers_need_certificates
from proto.policy import TaskPolicy
from proto.policy_file import PolicyError, read_policy

COMMANDS_GROUP = "fleetpulse.commands"
_LEAST_AUDIT_FILE_BYTES = 4096
LOG_LEVELS = ("debug", "info", "warning", "error")


class LazyGroup(click.Group):
    """A group whose commands are entry points."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(entry.name for entry in entry_points(group=COMMANDS_GROUP))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for entry in entry_points(group=COMMANDS_GROUP, name=cmd_name):
            command = entry.load()
            assert isinstance(command, click.Command)  # nosec B101 # for the type checker
            return command
        return None

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. Ctrl-C where the command has no answer to it, as while it is loaded, ends in silence."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


_HELP = f"""Telemetry and Docker tasks for a fleet of machines.

Every setting is a flag, an environment variable or a line in a .env file in this folder, in this order.

{EXIT_CODES}"""


@click.group(cls=LazyGroup, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("fleetpulse"), prog_name="fleetpulse")
def fleetpulse() -> None:
    """The group of all commands."""


def main() -> None:
    """The ``fleetpulse`` console script."""
    load_dotenv(".env")
    fleetpulse(prog_name="fleetpulse")


def _master_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The settings of a master, for every command that starts one."""
    options = (
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
        click.option("--heartbeat-interval", envvar="HEARTBEAT_INTERVAL", default="5s", show_default=True,
                     show_envvar=True, help="How often workers beat."),
        click.option("--inactivity-timeout", envvar="INACTIVITY_TIMEOUT", default="30s", show_default=True,
                     show_envvar=True, help="For how long a worker may be silent before it counts as inactive."),
        click.option("--retention", envvar="FLEETPULSE_RETENTION", default="24h", show_default=True,
                     show_envvar=True, help="For how long an inactive worker is shown before it is forgotten."),
        click.option("--max-workers", envvar="FLEETPULSE_MAX_WORKERS", default=config.Terms().max_workers,
                     type=click.IntRange(min=1), show_default=True, show_envvar=True,
                     help="How many workers the master takes on."),
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
        click.option("--database-url", envvar="DATABASE_URL", show_envvar=True, default=None,
                     show_default="SQLite in the data directory",
                     help="Where tasks are kept: sqlite:////folder/file.db or postgresql://user:password@host/database."),
        click.option("--data-dir", envvar="FLEETPULSE_DATA_DIR", show_envvar=True, type=click.Path(path_type=Path),
                     default=lambda: platformdirs.user_state_path("fleetpulse"),
                     show_default="per-user state directory", help="Where the master keeps what it must not forget."),
        click.option("--log-retention", envvar="FLEETPULSE_LOG_RETENTION", default="7d", show_default=True,
                     show_envvar=True, help="For how long the logs of an ended task are kept."),
        click.option("--task-retention", envvar="FLEETPULSE_TASK_RETENTION", default="90d", show_default=True,
                     show_envvar=True, help="For how long an ended task is kept."),
        click.option("--audit-file-size", envvar="FLEETPULSE_AUDIT_FILE_SIZE", default="64MiB", show_default=True,
                     show_envvar=True,
                     help="At this size a file of the audit trail is full; the newest five full ones are kept."),
        click.option("--placement", envvar="FLEETPULSE_PLACEMENT", default="best-fit", show_default=True,
                     show_envvar=True, help="Which policy decides where tasks run: the name of an installed one."),
        click.option("--task-policy", envvar="FLEETPULSE_TASK_POLICY", show_envvar=True,
                     type=click.Path(path_type=Path), default=None, show_default="built-in limits",
                     help="A TOML file that says which tasks are taken. A worker reads one of its own."),
        click.option("--secret-key-file", envvar="FLEETPULSE_SECRET_KEY_FILE", show_envvar=True,
                     type=click.Path(path_type=Path), default=None, show_default="secret.key in the data directory",
                     help="What seals the values of tasks' environments in the database; mode 0600."),
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
        click.option("--log-level", envvar="FLEETPULSE_LOG_LEVEL", default="info", show_default=True,
                     show_envvar=True, type=click.Choice(LOG_LEVELS), help="What is worth a line on stderr."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


_shell_option = click.option(
    "--shell", "has_shell", is_flag=True,
    help="Open the prompt of `fleetpulse shell` here; the log goes to a file in the data directory.",
)  # fmt: skip


def _prompt(settings: dict[str, Any]) -> Callable[[str], int]:
    from master.console.shell import run_shell  # noqa: PLC0415 - only needed with --shell

    return lambda url: run_shell(url, settings["data_dir"], token=find_owner_secret(settings["data_dir"]))


def _master_config(settings: dict[str, Any]) -> config.MasterConfig:
    """The settings, parsed and checked, with ports that are free. Raises ``click.UsageError``."""
    try:
        terms = config.Terms(
            heartbeat_interval_seconds=config.parse_duration("HEARTBEAT_INTERVAL", settings["heartbeat_interval"]),
            inactivity_timeout_seconds=config.parse_duration("INACTIVITY_TIMEOUT", settings["inactivity_timeout"]),
            retention_seconds=config.parse_duration("FLEETPULSE_RETENTION", settings["retention"]),
            max_workers=settings["max_workers"],
        )
        http = config.claim_port("HTTP_PORT", config.parse_address("HTTP_PORT", settings["http_port"]))
        grpc = config.claim_port("GRPC_PORT", config.parse_address("GRPC_PORT", settings["grpc_port"]))
        master_config = config.MasterConfig(
            store=_store_config(settings),
            http=http,
            grpc=grpc,
            tls=_tls_config(settings, grpc),
            terms=config.check_terms(terms),
            history=_history_config(settings),
            access=_access_config(settings),
            limits=config.Limits(
                connections=settings["max_connections"],
                client_connections=settings["client_connections"],
                client_requests_per_second=settings["client_rate"],
                limit_loopback=settings["limit_loopback"],
            ),
            log_level=settings["log_level"],
            audit_file_bytes=config.parse_size(
                "FLEETPULSE_AUDIT_FILE_SIZE", settings["audit_file_size"], _LEAST_AUDIT_FILE_BYTES
            ),
            grafana_url=config.parse_link("FLEETPULSE_GRAFANA_URL", settings["grafana_url"]),
            placement=_placement(settings["placement"]),
            task_policy=TaskPolicy() if settings["task_policy"] is None else read_policy(settings["task_policy"]),
        )
        has_tokens = bool(TokenFile(master_config.tokens_file).read())
        return config.check_exposure(master_config, has_tokens=has_tokens, has_worker_tls=master_config.tls is not None)
    except (ConfigError, PolicyError, TokenFileError) as error:
        raise click.UsageError(str(error)) from error


def _is_open(master_config: config.MasterConfig) -> bool:
    return not master_config.is_exposed and not TokenFile(master_config.tokens_file).read()


def _access_config(settings: dict[str, Any]) -> config.AccessConfig:
    certificate, key = settings["tls_certificate"], settings["tls_key"]
    if (certificate is None) != (key is None):
        raise ConfigError("--tls-certificate and --tls-key go together, and one of them is missing")
    tls = None if certificate is None else config.check_tls(config.TlsFiles(certificate, key))
    return config.AccessConfig(settings["tokens_file"], settings["allowed_hosts"], tls, settings["insecure_network"])


def _tls_config(settings: dict[str, Any], grpc: config.Address) -> config.TlsConfig | None:
    names = config.parse_names("FLEETPULSE_TLS_NAMES", settings["tls_names"])
    lifetime = config.parse_duration("FLEETPULSE_CERTIFICATE_LIFETIME", settings["certificate_lifetime"])
    text = settings["join_port"]
    join = config.parse_address("JOIN_PORT", text) if text else config.Address(grpc.host, grpc.port + 1)
    if not workers_need_certificates(settings["data_dir"]):
        return None
    if join.port > 65535:
        raise ConfigError(f"JOIN_PORT: there is no port after GRPC_PORT={grpc.port}; give one")
    if text.strip().lstrip(":").isdigit():
        join = join._replace(host=grpc.host)
    return config.TlsConfig(
        config.claim_port("JOIN_PORT", join), config.tls_names(grpc.host, socket.gethostname(), names), lifetime
    )


def _placement(name: str) -> str:
    """The name of a policy that can be loaded. Raises ``ConfigError``."""
    if name != config.BEST_FIT:
        from master.tasks.policies import POLICIES_GROUP, policy_named  # noqa: PLC0415 - mostly not needed

        policy_named(name, entry_points(group=POLICIES_GROUP))
    return name


def _history_config(settings: dict[str, Any]) -> config.HistoryConfig:
    url = settings["prometheus_url"].strip()
    return config.HistoryConfig(
        config.parse_retention("FLEETPULSE_HISTORY_RETENTION", settings["history_retention"]),
        config.parse_retention("FLEETPULSE_HISTORY_LONG_RETENTION", settings["history_long_retention"]),
        config.parse_http_url("FLEETPULSE_PROMETHEUS_URL", url) if url else None,
    )


def _store_config(settings: dict[str, Any]) -> config.StoreConfig:
    database_url = settings["database_url"]
    if database_url is not None:
        from master.store.url import parse_database_url  # noqa: PLC0415 - heavy, and mostly not needed

        parse_database_url(database_url)
    return config.StoreConfig(
        data_dir=settings["data_dir"],
        database_url=database_url,
        secret_key_file=_key_file(settings["secret_key_file"]),
        log_retention_seconds=config.parse_duration("FLEETPULSE_LOG_RETENTION", settings["log_retention"]),
        task_retention_seconds=config.parse_duration("FLEETPULSE_TASK_RETENTION", settings["task_retention"]),
    )


def _key_file(path: Path | None) -> Path | None:
    """One that can be used. Raises ``ConfigError``."""
    if path is not None:
        from master.store.key_file import read_key_file  # noqa: PLC0415 - heavy, and mostly not needed

        read_key_file(path)
    return path


@click.command("master")
@_master_options
@_shell_option
def master_command(has_shell: bool, **settings: Any) -> None:
    """Run the master: REST, /metrics and the port that workers connect to."""
    from master.server import MasterServer, configure_logging, refuse_several_processes  # noqa: PLC0415 - heavy

    try:
        refuse_several_processes()
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    master_config = _master_config(settings)
    if has_shell:
        from master.up import Supervisor  # noqa: PLC0415 - a master alone has no use for it

        supervisor = Supervisor(
            master_config, settings, None,
            echo=click.echo, is_open=_is_open(master_config), has_worker=False, prompt=_prompt(settings),
        )  # fmt: skip
        raise SystemExit(supervisor.run())
    configure_logging(master_config.log_level)
    MasterServer(master_config).run()


@click.command("up")
@_master_options
@click.option("--worker-id", envvar="FLEETPULSE_WORKER_ID", show_envvar=True, help="Id of this machine's worker.")
@_shell_option
def up_command(worker_id: str | None, has_shell: bool, **settings: Any) -> None:
    """Run a master and this machine's worker together; Ctrl-C stops both."""
    from master.up import Supervisor  # noqa: PLC0415 - see above

    master_config = _master_config(settings)
    prompt = _prompt(settings) if has_shell else None
    is_open = _is_open(master_config)
    raise SystemExit(
        Supervisor(master_config, settings, worker_id, echo=click.echo, is_open=is_open, prompt=prompt).run()
    )
