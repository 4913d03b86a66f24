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
from dotenv import load_dotenv

from fleetpulse.master import config
from fleetpulse.master.access.store import TokenFile, TokenFileError, find_owner_secret
from fleetpulse.master.console.errors import EXIT_CODES, INTERRUPTED
from fleetpulse.master.errors import ConfigError
from fleetpulse.master.flags import master_options
from fleetpulse.master.pki import workers_need_certificates
from fleetpulse.proto.policy import TaskPolicy
from fleetpulse.proto.policy_file import PolicyError, read_policy

COMMANDS_GROUP = "fleetpulse.commands"
_LEAST_AUDIT_FILE_BYTES = 4096


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


_shell_option = click.option(
    "--shell", "has_shell", is_flag=True,
    help="Open the prompt of `fleetpulse shell` here; the log goes to a file in the data directory.",
)  # fmt: skip


def _prompt(settings: dict[str, Any]) -> Callable[[str], int]:
    from fleetpulse.master.console.shell import run_shell  # noqa: PLC0415 - only needed with --shell

    return lambda url: run_shell(url, settings["data_dir"], token=find_owner_secret(settings["data_dir"]))


def _master_config(settings: dict[str, Any]) -> config.MasterConfig:
    """The settings, parsed and checked, with ports that are free. Raises ``click.UsageError``."""
    try:
        terms = config.LeaseConfig(
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
        from fleetpulse.master.tasks.policies import POLICIES_GROUP, policy_named  # noqa: PLC0415 - mostly not needed

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
        from fleetpulse.master.store.url import parse_database_url  # noqa: PLC0415 - heavy, and mostly not needed

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
        from fleetpulse.master.store.key_file import read_key_file  # noqa: PLC0415 - heavy, and mostly not needed

        read_key_file(path)
    return path


@click.command("master")
@master_options
@_shell_option
def master_command(has_shell: bool, **settings: Any) -> None:
    """Run the master: REST, /metrics and the port that workers connect to."""
    from fleetpulse.master.server import MasterServer, configure_logging, refuse_several_processes  # noqa: PLC0415 - heavy

    try:
        refuse_several_processes()
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    master_config = _master_config(settings)
    if has_shell:
        from fleetpulse.master.up import Supervisor  # noqa: PLC0415 - a master alone has no use for it

        supervisor = Supervisor(
            master_config, settings, None,
            echo=click.echo, is_open=_is_open(master_config), has_worker=False, prompt=_prompt(settings),
        )  # fmt: skip
        raise SystemExit(supervisor.run())
    configure_logging(master_config.log_level)
    MasterServer(master_config).run()


@click.command("up")
@master_options
@click.option("--worker-id", envvar="FLEETPULSE_WORKER_ID", show_envvar=True, help="Id of this machine's worker.")
@_shell_option
def up_command(worker_id: str | None, has_shell: bool, **settings: Any) -> None:
    """Run a master and this machine's worker together; Ctrl-C stops both."""
    from fleetpulse.master.up import Supervisor  # noqa: PLC0415 - see above

    master_config = _master_config(settings)
    prompt = _prompt(settings) if has_shell else None
    is_open = _is_open(master_config)
    raise SystemExit(
        Supervisor(master_config, settings, worker_id, echo=click.echo, is_open=is_open, prompt=prompt).run()
    )
