"""The ``fleetpulse`` command with the subcommands ``master`` and ``up``, and every setting of a master.

Subcommands are entry points of the group ``fleetpulse.commands`` and load when they are used: ``fleetpulse worker``
does not load gunicorn, and master and worker do not import each other.
"""

import socket
from collections.abc import Callable
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import click
from dotenv import load_dotenv

from fleetpulse.master import config
from fleetpulse.master.access.store import TokenFile, TokenFileError, find_owner_secret
from fleetpulse.master.addresses import Address, claim_port, parse_address
from fleetpulse.master.console.command import Option, data_dir_option, with_options
from fleetpulse.master.console.errors import EXIT_CODES_HELP, ExitCode
from fleetpulse.master.errors import ConfigError
from fleetpulse.master.pki import workers_need_certificates
from fleetpulse.proto.policy import TaskPolicy
from fleetpulse.proto.policy_file import PolicyError, read_policy

COMMANDS_GROUP = "fleetpulse.commands"
_MIN_AUDIT_FILE_BYTES = 4096


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
        """Runs a command. Ctrl-C ends in silence where the command itself does not handle it."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(ExitCode.INTERRUPTED)


_HELP = f"""Telemetry and Docker tasks for a fleet of machines.

Every setting is a flag, an environment variable or a line in a .env file in this folder, in this order.

{EXIT_CODES_HELP}"""


@click.group(cls=LazyGroup, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("fleetpulse"), prog_name="fleetpulse")
def fleetpulse() -> None:
    """The group of all commands."""


def main() -> None:
    """The ``fleetpulse`` console script."""
    load_dotenv(".env")
    fleetpulse(prog_name="fleetpulse")


def _setting(flag: str, variable: str, default: Any, help_text: str, *names: str, **attributes: Any) -> Option:
    """A setting: a flag and an environment variable. ``names``: the name of the parameter, if it is not the flag's."""
    shown = {"show_default": True, "show_envvar": True} | attributes
    return click.option(flag, *names, envvar=variable, default=default, help=help_text, **shown)


_PATH = click.Path(path_type=Path)
_PEM_FILE = click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path)
_POSITIVE = click.IntRange(min=1)
_LIMITS = config.Limits()
_SETTINGS = (
    _setting("--http-port", "HTTP_PORT", ":8080",
             "Where REST and /metrics listen: PORT, :PORT or HOST:PORT; without a host on 127.0.0.1."),
    _setting("--grpc-port", "GRPC_PORT", ":50051",
             "Where workers connect to: PORT, :PORT or HOST:PORT; without a host on 127.0.0.1."),
    _setting("--join-port", "JOIN_PORT", "",
             "Where new workers get a certificate, if there is a CA: PORT, :PORT or HOST:PORT.",
             show_default="the gRPC port + 1"),
    _setting("--tls-name", "FLEETPULSE_TLS_NAMES", "",
             "Further host names and addresses by which workers reach this master, separated by commas.",
             "tls_names", show_default="loopback and the host name"),
    _setting("--certificate-lifetime", "FLEETPULSE_CERTIFICATE_LIFETIME", "30d",
             "How long certificates of workers are valid."),
    _setting("--heartbeat-interval", "HEARTBEAT_INTERVAL", "5s", "How often workers send heartbeats."),
    _setting("--inactivity-timeout", "INACTIVITY_TIMEOUT", "30s",
             "How long a worker may be silent before it counts as inactive."),
    _setting("--retention", "FLEETPULSE_RETENTION", "24h",
             "How long an inactive worker is shown before it is forgotten."),
    _setting("--max-workers", "FLEETPULSE_MAX_WORKERS", config.LeaseConfig().max_workers,
             "How many workers the master accepts.", type=_POSITIVE),
    _setting("--max-connections", "FLEETPULSE_MAX_CONNECTIONS", _LIMITS.connections,
             "How many connections HTTP clients may have together.", type=_POSITIVE),
    _setting("--client-connections", "FLEETPULSE_CLIENT_CONNECTIONS", _LIMITS.client_connections,
             "How many connections one HTTP client may have.", type=_POSITIVE),
    _setting("--client-rate", "FLEETPULSE_CLIENT_RATE", _LIMITS.client_requests_per_second,
             "How many requests a second one HTTP client may make, with bursts of twice as many; 0: any.",
             type=click.IntRange(min=0)),
    _setting("--limit-loopback/--no-limit-loopback", "FLEETPULSE_LIMIT_LOOPBACK", False,
             "Whether the limits of one client hold for clients on this machine.", show_default="off"),
    _setting("--database-url", "DATABASE_URL", None,
             "Where tasks are stored: sqlite:////folder/file.db or postgresql://user:password@host/database.",
             show_default="SQLite in the data directory"),
    data_dir_option("Where the master stores its files."),
    _setting("--log-retention", "FLEETPULSE_LOG_RETENTION", "7d", "How long the logs of an ended task are kept."),
    _setting("--task-retention", "FLEETPULSE_TASK_RETENTION", "90d", "How long an ended task is kept."),
    _setting("--audit-file-size", "FLEETPULSE_AUDIT_FILE_SIZE", "64MiB",
             "At this size a file of the audit trail is full; the newest five full ones are kept."),
    _setting("--placement", "FLEETPULSE_PLACEMENT", config.BEST_FIT,
             "The policy that decides where tasks run: the name of an installed one."),
    _setting("--task-policy", "FLEETPULSE_TASK_POLICY", None,
             "A TOML file that says which tasks are accepted. A worker reads one of its own.",
             type=_PATH, show_default="built-in limits"),
    _setting("--secret-key-file", "FLEETPULSE_SECRET_KEY_FILE", None,
             "The key that encrypts the environments of tasks in the database; mode 0600.",
             type=_PATH, show_default="secret.key in the data directory"),
    _setting("--grafana-url", "FLEETPULSE_GRAFANA_URL", "",
             "Where Grafana with the dashboards is, for links from the page.", show_default="none"),
    _setting("--history-retention", "FLEETPULSE_HISTORY_RETENTION", "24h",
             "How long points of 15 seconds of every reading are kept; off: there is no history."),
    _setting("--history-long-retention", "FLEETPULSE_HISTORY_LONG_RETENTION", "30d",
             "How long points of 5 minutes of every reading are kept, or off."),
    _setting("--prometheus-url", "FLEETPULSE_PROMETHEUS_URL", "",
             "A Prometheus that scrapes this master, to ask for history first.", show_default="none"),
    _setting("--tokens-file", "FLEETPULSE_TOKENS_FILE", None,
             "Where tokens are stored; `fleetpulse token` writes it.",
             type=_PATH, show_default="tokens.json in the data directory"),
    _setting("--allowed-host", "FLEETPULSE_ALLOWED_HOSTS", None,
             "A further host name of the master, needed while there is no token. May be repeated.",
             "allowed_hosts", multiple=True, show_default="none"),
    _setting("--tls-certificate", "FLEETPULSE_TLS_CERTIFICATE", None,
             "REST over TLS: a PEM file with the certificate and its chain.", type=_PEM_FILE, show_default="none"),
    _setting("--tls-key", "FLEETPULSE_TLS_KEY", None, "REST over TLS: the PEM file with the certificate's key.",
             type=_PEM_FILE, show_default="none"),
    _setting("--insecure-network", "FLEETPULSE_INSECURE_NETWORK", False,
             "Listen beyond 127.0.0.1 although tokens or TLS are missing: whoever reaches the ports can see the fleet, "
             "and without tokens start containers on it.", is_flag=True, show_default="off"),
    _setting("--log-level", "FLEETPULSE_LOG_LEVEL", "info", "The lowest level that is logged on stderr.",
             type=click.Choice(("debug", "info", "warning", "error"))),
)  # fmt: skip
_shell_option = click.option(
    "--shell", "has_shell", is_flag=True,
    help="Open the prompt of `fleetpulse shell` here; the log goes to a file in the data directory.",
)  # fmt: skip


def master_config(settings: dict[str, Any]) -> config.MasterConfig:
    """Parses and checks the settings, and finds free ports. Raises ``click.UsageError``."""
    try:
        lease = config.LeaseConfig(
            heartbeat_interval_seconds=config.parse_duration("HEARTBEAT_INTERVAL", settings["heartbeat_interval"]),
            inactivity_timeout_seconds=config.parse_duration("INACTIVITY_TIMEOUT", settings["inactivity_timeout"]),
            retention_seconds=config.parse_duration("FLEETPULSE_RETENTION", settings["retention"]),
            max_workers=settings["max_workers"],
        )
        http = claim_port("HTTP_PORT", parse_address("HTTP_PORT", settings["http_port"]))
        grpc = claim_port("GRPC_PORT", parse_address("GRPC_PORT", settings["grpc_port"]))
        result = config.MasterConfig(
            store=_store_config(settings),
            http=http,
            grpc=grpc,
            tls=_tls_config(settings, grpc),
            lease=config.check_lease(lease),
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
                "FLEETPULSE_AUDIT_FILE_SIZE", settings["audit_file_size"], _MIN_AUDIT_FILE_BYTES
            ),
            grafana_url=config.parse_link("FLEETPULSE_GRAFANA_URL", settings["grafana_url"]),
            placement=_placement(settings["placement"]),
            task_policy=TaskPolicy() if settings["task_policy"] is None else read_policy(settings["task_policy"]),
        )
        has_tokens = bool(TokenFile(result.tokens_file).read())
        return config.check_exposure(result, has_tokens=has_tokens, has_worker_tls=result.tls is not None)
    except (ConfigError, PolicyError, TokenFileError) as error:
        raise click.UsageError(str(error)) from error


def _access_config(settings: dict[str, Any]) -> config.AccessConfig:
    certificate, key = settings["tls_certificate"], settings["tls_key"]
    if (certificate is None) != (key is None):
        raise ConfigError("--tls-certificate and --tls-key go together, and one of them is missing")
    tls = None if certificate is None else config.check_tls(config.TlsFiles(certificate, key))
    return config.AccessConfig(settings["tokens_file"], settings["allowed_hosts"], tls, settings["insecure_network"])


def _tls_config(settings: dict[str, Any], grpc: Address) -> config.TlsConfig | None:
    names = config.parse_names("FLEETPULSE_TLS_NAMES", settings["tls_names"])
    lifetime = config.parse_duration("FLEETPULSE_CERTIFICATE_LIFETIME", settings["certificate_lifetime"])
    text = settings["join_port"]
    join = parse_address("JOIN_PORT", text) if text else Address(grpc.host, grpc.port + 1)
    if not workers_need_certificates(settings["data_dir"]):
        return None
    if join.port > 65535:
        raise ConfigError(f"JOIN_PORT: there is no port after GRPC_PORT={grpc.port}; give one")
    if text.strip().lstrip(":").isdigit():
        join = join._replace(host=grpc.host)
    return config.TlsConfig(
        claim_port("JOIN_PORT", join), config.tls_names(grpc.host, socket.gethostname(), names), lifetime
    )


def _placement(name: str) -> str:
    if name != config.BEST_FIT:
        from fleetpulse.master.tasks.placement import POLICIES_GROUP, policy_named  # noqa: PLC0415 - rarely needed

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
        log_retention_seconds=config.parse_duration("FLEETPULSE_LOG_RETENTION", settings["log_retention"]),
        task_retention_seconds=config.parse_duration("FLEETPULSE_TASK_RETENTION", settings["task_retention"]),
    )


def _master_options(command: Any) -> Any:
    return with_options(command, _SETTINGS)


@click.command("master")
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


@click.command("up")
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
    is_open = not result.is_exposed and not TokenFile(result.tokens_file).read()
    prompt = _prompt(settings["data_dir"]) if has_shell else None
    supervisor = Supervisor(
        result, _environment(settings, result), worker_id,
        echo=click.echo, is_open=is_open, has_worker=has_worker, prompt=prompt,
    )  # fmt: skip
    raise SystemExit(supervisor.run())


def _prompt(data_dir: Path) -> Callable[[str], int]:
    from fleetpulse.master.console.shell import run_shell  # noqa: PLC0415 - only needed with --shell

    return lambda url: run_shell(url, data_dir, token=find_owner_secret(data_dir))


def _environment(settings: dict[str, Any], result: config.MasterConfig) -> dict[str, str]:
    """Every setting of a master as an environment variable, with the ports that were found free.

    An empty variable is as good as none. Flags would show passwords to everybody on the machine.
    """
    found = {"http_port": result.http, "grpc_port": result.grpc, "join_port": result.tls and result.tls.join}
    environment = {}
    for option in master_command.params:
        value = (settings | found).get(option.name or "")
        if isinstance(option.envvar, str):
            words = value if isinstance(value, tuple) and option.multiple else (value,)
            environment[option.envvar] = " ".join("" if word is None else str(word) for word in words)
    return environment
