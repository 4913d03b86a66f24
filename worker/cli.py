"""The worker's commands: ``worker`` reports this machine, ``simulate`` a fleet of simulated machines."""

import logging
import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import click
import platformdirs

from fleetpulse.proto.env_file import ServiceCommand
from fleetpulse.proto.fields import LABELS
from fleetpulse.proto.listeners import MASTER_USER
from fleetpulse.proto.logs import configure_logging
from fleetpulse.proto.policy import PolicyError, TaskPolicy, read_policy
from fleetpulse.proto.rules import MAX_CUSTOM_SAMPLES, WORKER_ID_RULE, is_host, is_worker_id
from fleetpulse.worker.credentials import BUNDLE_NAME, CredentialsError, JoinEndpoint

if TYPE_CHECKING:
    from fleetpulse.proto.join import JoinToken
    from fleetpulse.worker.credentials.renewer import CertificateRenewer
    from fleetpulse.worker.docker_engine.registries import RegistryLogins

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _target(master: str) -> str:
    """A grpc target. A wrong address is refused here; grpc would look its name up for ever."""
    host, port = _host_and_port("FLEETPULSE_MASTER", master, "127.0.0.1:50051")
    return f"{host}:{port}"


def _host_and_port(variable: str, text: str, example: str) -> tuple[str, int]:
    host, _, port = text.strip().rpartition(":")
    if not (is_host(host) and re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) <= 65535):
        raise click.UsageError(f"{variable}={text!r}: expected HOST:PORT, as {example}")
    return host, int(port)


def _proxy(url: str | None) -> str | None:
    if not url:
        return None
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme == "http" and parts.hostname and parts.port and not parts.path.strip("/")
    except ValueError:
        is_valid = False
    if not is_valid:  # the URL may hold a password, so it is not shown
        raise click.UsageError("FLEETPULSE_PROXY: expected http://[USER:PASSWORD@]HOST:PORT")
    return url.rstrip("/")


def _labels(texts: Sequence[str]) -> dict[str, str]:
    """Labels that the master takes."""
    labels = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise click.UsageError(f"--label {text!r}: expected NAME=VALUE")
        if not LABELS.name.fits(name):
            raise click.UsageError(f"--label {text!r}: the name must be {LABELS.name.words}")
        if not LABELS.value.fits(value):
            raise click.UsageError(f"--label {text[:80]!r}: the value must be {LABELS.value.words}")
        labels[name] = value
    if len(labels) > LABELS.most:
        raise click.UsageError(f"--label: {len(labels)} labels are too many: at most {LABELS.most} are taken")
    return labels


def _task_policy(path: Path | None) -> TaskPolicy:
    try:
        return TaskPolicy() if path is None else read_policy(path)
    except PolicyError as error:
        raise click.UsageError(str(error)) from error


def _registry_logins(path: Path | None) -> "RegistryLogins | None":
    if path is None:
        return None
    from fleetpulse.worker.docker_engine.registries import RegistryConfigError, RegistryLogins  # noqa: PLC0415 - mostly not needed

    try:
        return RegistryLogins(path)
    except RegistryConfigError as error:
        raise click.UsageError(str(error)) from error


def _option(*names: str, parse: Callable[[Any], Any] | None = None, **attributes: Any) -> _Decorator:
    """An option; ``--help`` shows its environment variable. ``parse`` raises ``click.UsageError``."""
    callback = None if parse is None else lambda _context, _parameter, value: parse(value)
    return click.option(*names, show_envvar=True, callback=callback, **attributes)


def _options(*options: _Decorator) -> _Decorator:
    """Several options as one decorator, in the order of ``--help``."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


# fmt: off
_master_option = _option("--master", envvar="FLEETPULSE_MASTER", default="127.0.0.1:50051", show_default=True,
                         parse=_target, help="HOST:PORT of the master's gRPC port.")


def _data_dir_option(help_text: str) -> _Decorator:
    return _option("--data-dir", envvar="FLEETPULSE_DATA_DIR", type=click.Path(path_type=Path), help=help_text,
                   default=lambda: platformdirs.user_state_path("fleetpulse"), show_default="per-user state directory")


_join_options = _options(
    # The flag is for trials: everybody on the machine may read it.
    _option("--join", "join_token", envvar="FLEETPULSE_JOIN_TOKEN", metavar="TOKEN",
            help="Get a certificate with this token of `fleetpulse ca join-token`."),
    _option("--join-file", envvar="FLEETPULSE_JOIN_FILE", type=click.Path(path_type=Path),
            help="The same, with the token in this file."),
    _option("--join-address", envvar="FLEETPULSE_JOIN_ADDRESS", metavar="HOST:PORT",
            show_default="the master's gRPC port + 1", help="The master's join port."),
)

_collector_options = _options(
    _option("--collector", "extra_collectors", envvar="FLEETPULSE_COLLECTOR", multiple=True, metavar="NAME",
            help="Also a collector that is off by default: systemd; may be repeated."),
    _option("--skip-collector", "skipped_collectors", envvar="FLEETPULSE_SKIP_COLLECTOR", multiple=True, metavar="NAME",
            help="All collectors but this: cpu, memory, filesystem, disk, network, load, uptime, pressure, sensors, "
                 "cores, gpu; may be repeated."),
    _option("--gpu-process-names/--no-gpu-process-names", "names_gpu_processes", default=True, show_default=True,
            envvar="FLEETPULSE_GPU_PROCESS_NAMES", help="Report user and command of the processes that hold a GPU."),
    _option("--filesystem-include", envvar="FLEETPULSE_FILESYSTEM_INCLUDE", multiple=True, metavar="PATTERN",
            help="Report the filesystems with such a mount point, as '/data*', and no others; may be repeated."),
    _option("--filesystem-exclude", envvar="FLEETPULSE_FILESYSTEM_EXCLUDE", multiple=True, metavar="PATTERN",
            help="Don't report filesystems with such a mount point; may be repeated."),
    _option("--disk-include", envvar="FLEETPULSE_DISK_INCLUDE", multiple=True, metavar="PATTERN",
            help="Report the disks with such a name, as 'nvme*', and no others; may be repeated."),
    _option("--disk-exclude", envvar="FLEETPULSE_DISK_EXCLUDE", multiple=True, metavar="PATTERN",
            help="Don't report disks with such a name; may be repeated."),
    _option("--network-include", envvar="FLEETPULSE_NETWORK_INCLUDE", multiple=True, metavar="PATTERN",
            help="Report the network interfaces with such a name, as 'eno*', and no others; may be repeated."),
    _option("--network-exclude", envvar="FLEETPULSE_NETWORK_EXCLUDE", multiple=True, metavar="PATTERN",
            help="Don't report network interfaces with such a name; may be repeated."),
)

_custom_metrics_options = _options(
    _option("--plugins/--no-plugins", "uses_plugins", envvar="FLEETPULSE_PLUGINS", default=True, show_default=True,
            help="Ask installed plug-ins for metrics."),
    _option("--skip-plugin", "skipped_plugins", envvar="FLEETPULSE_SKIP_PLUGIN", multiple=True, metavar="NAME",
            help="All plug-ins but this; may be repeated."),
    _option("--metrics-command", "metrics_commands", multiple=True, metavar="NAME=COMMAND",
            help="A command that prints metrics as Prometheus' text; no shell; may be repeated."),
    _option("--metrics-dir", envvar="FLEETPULSE_METRICS_DIR", type=click.Path(path_type=Path),
            help="A folder of such programs."),
    _option("--metrics-interval", "metrics_interval_seconds", envvar="FLEETPULSE_METRICS_INTERVAL",
            type=click.FloatRange(min=1.0, max=86400.0), default=15.0, show_default=True, metavar="SECONDS",
            help="How often those run; each may take as long, 10 s at most."),
    _option("--textfile-dir", envvar="FLEETPULSE_TEXTFILE_DIR", type=click.Path(path_type=Path),
            help="A folder of *.prom files with metrics."),
    _option("--textfile-max-age", "textfile_max_age_seconds", envvar="FLEETPULSE_TEXTFILE_MAX_AGE",
            type=click.FloatRange(min=0.0), default=172_800.0, show_default=True, metavar="SECONDS",
            help="Oldest age of a file whose metrics are used; 0: any age."),
)

_worker_options = _options(
    _master_option,
    _option("--master-user", envvar=MASTER_USER, default="", metavar="USER", show_default="this user and root",
            help="A further user of this machine whose master is trusted without TLS."),
    _option("--insecure-network", "is_network_trusted", envvar="FLEETPULSE_INSECURE_NETWORK", is_flag=True,
            help="Reach a master on another machine without TLS: whoever is between may read and change all."),
    _option("--proxy", envvar="FLEETPULSE_PROXY", metavar="URL", parse=_proxy,
            help="Reach the master through this HTTP proxy, unless NO_PROXY names the master; http_proxy is not used."),
    _option("--worker-id", envvar="FLEETPULSE_WORKER_ID",
            help="Name of this worker; by default the one it had before, else the host's name."),
    _option("--label", "labels", multiple=True, metavar="NAME=VALUE",
            parse=_labels, help="A label of this worker; may be repeated."),
    _data_dir_option("Where the worker keeps its id."),
    _option("--log-level", envvar="FLEETPULSE_LOG_LEVEL", default="info", show_default=True,
            type=click.Choice(["debug", "info", "warning", "error"]), help="Least level of the lines on stderr."),
    _option("--tasks/--no-tasks", "runs_tasks", envvar="FLEETPULSE_TASKS", default=True, show_default=True,
            help="Run Docker containers for the master, or only report telemetry."),
    _join_options,
    _option("--task-policy", envvar="FLEETPULSE_TASK_POLICY", type=click.Path(path_type=Path), parse=_task_policy,
            help="A TOML file with rules for the tasks of this worker, whatever the master says."),
    _option("--registry-config", "registry_logins", envvar="FLEETPULSE_REGISTRY_CONFIG",
            type=click.Path(path_type=Path), parse=_registry_logins,
            help="A file as docker login writes it, mode 0600: logins for pulls."),
    _option("--pull-timeout", "pull_timeout_seconds", envvar="FLEETPULSE_PULL_TIMEOUT",
            type=click.FloatRange(min=1.0, max=86400.0), default=60.0, show_default=True, metavar="SECONDS",
            help="A pull without progress for so long fails."),
    _collector_options,
    _custom_metrics_options,
)

_simulate_options = _options(
    _master_option,
    _option("--workers", type=click.IntRange(1, 20_000), default=100, show_default=True, help="How many machines."),
    _option("--prefix", default="sim", show_default=True, help="Their ids begin with this."),
    _option("--gpu-share", type=click.FloatRange(0.0, 1.0), default=0.25, show_default=True,
            help="Share of the machines that have GPUs."),
    _option("--gpus", "gpus_per_machine", type=click.IntRange(0, 16), default=2, show_default=True,
            help="GPUs in each of those."),
    _option("--own-samples", "custom_samples", type=click.IntRange(0, MAX_CUSTOM_SAMPLES), default=0,
            show_default=True, help="Samples of custom metrics of each machine."),
    _option("--stall", type=click.IntRange(0), default=0, help="Machines that fall silent and recover."),
    _option("--vanish", type=click.IntRange(0), default=0, help="Machines that are cut off and stay away."),
    _option("--flap", type=click.IntRange(0), default=0, help="Machines that are cut off and come back."),
    _option("--trouble-after", "trouble_after_seconds", type=click.FloatRange(0.0), default=30.0,
            show_default=True, metavar="SECONDS", help="How long those are well before their trouble."),
    _option("--trouble-for", "trouble_seconds", type=click.FloatRange(0.0), default=45.0, show_default=True,
            metavar="SECONDS", help="How long a stall or an absence lasts."),
    _option("--ramp", "ramp_seconds", type=click.FloatRange(0.0), show_default="5 s, and 25 s for 10,000",
            metavar="SECONDS", help="Time over which the machines come up; 0: all at once, a storm."),
    _option("--streams-per-connection", type=click.IntRange(1, 1_000), default=1,
            show_default=True, metavar="NUMBER", help="Machines that share one; each of a real fleet has its own."),
    _option("--batch", type=click.IntRange(2, 10_000), metavar="NUMBER",
            help="Machines for which one agent reports on one stream; by default each has its own."),
    _option("--duration", type=click.FloatRange(min=0.0, min_open=True), metavar="SECONDS",
            help="End after this time; by default run until SIGTERM or Ctrl-C."),
    _option("--goodbye/--no-goodbye", default=True, help="At the end, leave properly or all vanish at once."),
    _option("--tasks/--no-tasks", "runs_tasks", default=True, help="Pretend to run tasks, or only report telemetry."),
    _option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same machines."),
    _option("--json", "as_json", is_flag=True, help="Print the state as JSON lines on stdout."),
    _join_options,
    _data_dir_option("Where the machines keep their certificates."),
)
# fmt: on


@click.command("worker", cls=ServiceCommand)
@_worker_options
def worker_command(
    data_dir: Path,
    log_level: str,
    join_token: str | None,
    join_file: Path | None,
    join_address: str | None,
    **settings: Any,
) -> None:
    """Report this machine to the master until SIGTERM or Ctrl-C."""
    _exit_on_signals()
    _silence_grpc_core()
    from fleetpulse.worker.app import UnknownCollector, UnprotectedMaster, WorkerConfig, run_worker  # noqa: PLC0415 - heavy, and not needed for --help
    from fleetpulse.worker.collectors.custom_metrics import InvalidSource  # noqa: PLC0415
    from fleetpulse.worker.identity import InvalidWorkerId  # noqa: PLC0415

    configure_logging(log_level)
    config = WorkerConfig(
        data_dir=data_dir,
        environment=os.environ,
        join_endpoint=join_endpoint(join_address, settings["master"]),
        join_token=read_join_token(join_token, join_file, has_joined=(data_dir / BUNDLE_NAME).exists()),
        **settings,
    )
    try:
        run_worker(config)
    except (InvalidWorkerId, InvalidSource, UnknownCollector, UnprotectedMaster) as error:
        raise click.UsageError(str(error)) from error
    except CredentialsError as error:
        raise click.ClickException(str(error)) from error


@click.command("simulate", cls=ServiceCommand)
@_simulate_options
def simulate_command(
    duration: float | None,
    goodbye: bool,
    as_json: bool,
    join_token: str | None,
    join_file: Path | None,
    join_address: str | None,
    data_dir: Path,
    **settings: Any,
) -> None:
    """Simulate a fleet of machines, over the real wire with the real session code."""
    _exit_on_signals()
    _silence_grpc_core()
    from fleetpulse.worker.simulation.connections import TooFewFiles  # noqa: PLC0415 - heavy, and not needed for --help
    from fleetpulse.worker.simulation.fleet import SimulationConfig  # noqa: PLC0415
    from fleetpulse.worker.simulation.run import join_all, run_simulation  # noqa: PLC0415

    config = SimulationConfig(**settings)
    if config.stall + config.vanish + config.flap > config.workers:
        raise click.UsageError("--stall, --vanish and --flap add up to more machines than --workers")
    if not is_worker_id(f"{config.prefix}-{config.workers}"):
        raise click.UsageError(f"--prefix {config.prefix!r} makes no worker ids: a worker id has {WORKER_ID_RULE}")
    if config.batch and (config.stall or config.vanish or config.flap):
        raise click.UsageError("--batch: --stall, --vanish and --flap need machines with a stream of their own")
    folder = data_dir / "simulated"
    token = read_join_token(join_token, join_file, has_joined=folder.exists())
    configure_logging("warning")
    # Thousands of sessions that lose one master would log the same; the state line reports it once.
    logging.getLogger("fleetpulse.worker.session").setLevel(logging.ERROR)
    renewers: Mapping[str, CertificateRenewer] = {}
    if token is not None or folder.exists():
        if config.connections < config.workers:
            raise click.UsageError("--batch, --streams-per-connection: each certificate is for one connection")
        try:
            endpoint = join_endpoint(join_address, config.master)
            renewers = join_all(config.worker_ids(), folder, token, endpoint)
        except CredentialsError as error:
            raise click.ClickException(str(error)) from error
    try:
        run_simulation(config, duration, renewers, say_goodbye=goodbye, as_json=as_json)
    except TooFewFiles as error:
        raise click.ClickException(str(error)) from error


def read_join_token(join_token: str | None, join_file: Path | None, *, has_joined: bool) -> "JoinToken | None":
    """The token of the flags. ``None`` without flags, and when the file is gone after the worker has joined.

    Raises ``click.UsageError``, which does not show the token.
    """
    from fleetpulse.proto.join import parse_join_token  # noqa: PLC0415 - mostly not needed

    source, text = "--join", join_token
    try:
        if not text and join_file is not None:
            source = f"--join-file {join_file}"
            text = join_file.read_text(encoding="ascii", errors="replace")
        return parse_join_token(text) if text else None
    except OSError as error:
        if has_joined and isinstance(error, FileNotFoundError):
            return None
        raise click.UsageError(f"{source}: {error.strerror}") from error
    except ValueError as error:
        raise click.UsageError(f"{source}: {error}") from error


def join_endpoint(join_address: str | None, target: str) -> JoinEndpoint:
    """The join port: as configured, or one above the master's. Raises ``click.UsageError``."""
    if join_address:
        host, port = _host_and_port("FLEETPULSE_JOIN_ADDRESS", join_address, "127.0.0.1:50052")
    else:
        host, port = _host_and_port("FLEETPULSE_MASTER", target, "127.0.0.1:50051")
        port = min(port + 1, 65535)
    return JoinEndpoint(host.removeprefix("[").removesuffix("]"), port)


def _exit_on_signals() -> None:
    """Until there is a session that can say goodbye. As process 1 of a container only SIGKILL would end this."""

    def leave(_number: int, _frame: object) -> NoReturn:
        raise SystemExit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)


def _silence_grpc_core() -> None:
    """Before grpc is imported: its core logs each failed handshake; the session logs an outage once."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
