"""The worker's commands: ``worker`` reports this machine, ``simulate`` a fleet that is not there."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
import platformdirs

from fleetpulse.proto.policy import TaskPolicy
from fleetpulse.proto.policy_file import PolicyError, read_policy
from fleetpulse.proto.rules import MAX_CUSTOM_SAMPLES, WORKER_ID_RULE, is_worker_id
from fleetpulse.worker.credentials import BUNDLE_NAME, CredentialsError
from fleetpulse.worker.join_flags import door_from, join_options, token_from
from fleetpulse.worker.own_flags import own_metrics_from, own_metrics_options

if TYPE_CHECKING:
    from fleetpulse.worker.session import Credentials

LOG_LEVELS = ("debug", "info", "warning", "error")

_master_option = click.option(
    "--master", envvar="FLEETPULSE_MASTER", default="localhost:50051", show_default=True, show_envvar=True,
    help="HOST:PORT of the master's gRPC port.",
)  # fmt: skip


def _data_dir_option(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--data-dir", envvar="FLEETPULSE_DATA_DIR", show_envvar=True, type=click.Path(path_type=Path),
        default=lambda: platformdirs.user_state_path("fleetpulse"), show_default="per-user state directory", help=what,
    )  # fmt: skip


@click.command("worker")
@_master_option
@click.option(
    "--worker-id",
    envvar="FLEETPULSE_WORKER_ID",
    show_envvar=True,
    help="Name of this worker; by default the one it had before, else the host's name.",
)
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="A label of this worker; may be repeated.")
@_data_dir_option("Where the worker keeps its id.")
@click.option(
    "--log-level",
    envvar="FLEETPULSE_LOG_LEVEL",
    default="info",
    show_default=True,
    show_envvar=True,
    type=click.Choice(LOG_LEVELS),
    help="What is worth a line on stderr.",
)
@click.option(
    "--tasks/--no-tasks",
    "runs_tasks",
    envvar="FLEETPULSE_TASKS",
    default=True,
    show_default=True,
    show_envvar=True,
    help="Run Docker containers for the master, or only report telemetry.",
)
@join_options
@click.option(
    "--task-policy",
    envvar="FLEETPULSE_TASK_POLICY",
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="A TOML file that says what tasks may run here, whatever the master says.",
)
@click.option(
    "--registry-config",
    envvar="FLEETPULSE_REGISTRY_CONFIG",
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="A file as docker login writes it, mode 0600: logins for pulls.",
)
@own_metrics_options
def worker_command(  # noqa: PLR0913, PLR0917 - the flags of a command
    master: str,
    worker_id: str | None,
    labels: tuple[str, ...],
    data_dir: Path,
    log_level: str,
    runs_tasks: bool,
    join_token: str | None,
    join_file: Path | None,
    join_address: str | None,
    task_policy: Path | None,
    registry_config: Path | None,
    **own: Any,
) -> None:
    """Report this machine to the master until SIGTERM or Ctrl-C."""
    _leave_on_signals()
    _hush_grpc()
    from fleetpulse.worker.app import WorkerConfig, run_worker  # noqa: PLC0415 - heavy, and not needed for --help
    from fleetpulse.worker.identity import InvalidWorkerId  # noqa: PLC0415

    _configure_logging(log_level)
    target = _target(master)
    try:
        run_worker(
            WorkerConfig(
                master=target,
                worker_id=worker_id,
                data_dir=data_dir,
                labels=dict(_label(label) for label in labels),
                runs_tasks=runs_tasks,
                docker=docker_settings(os.environ),
                own_metrics=own_metrics_from(os.environ, **own),
                join=door_from(join_address, target),
                join_token=token_from(join_token, join_file, has_joined=(data_dir / BUNDLE_NAME).exists()),
                task_policy=TaskPolicy() if task_policy is None else read_policy(task_policy),
                registry_config=_registry_config(registry_config),
            )
        )
    except (InvalidWorkerId, PolicyError) as error:
        raise click.UsageError(str(error)) from error
    except CredentialsError as error:
        raise click.ClickException(str(error)) from error


@click.command("simulate")
@_master_option
@click.option("--workers", type=click.IntRange(1, 20_000), default=100, show_default=True, help="How many machines.")
@click.option("--prefix", default="sim", show_default=True, help="Their ids begin with this.")
@click.option(
    "--gpu-share",
    type=click.FloatRange(0.0, 1.0),
    default=0.25,
    show_default=True,
    help="Share of the machines that have GPUs.",
)
@click.option(
    "--gpus",
    "gpus_per_machine",
    type=click.IntRange(0, 16),
    default=2,
    show_default=True,
    help="GPUs in each of those.",
)
@click.option(
    "--own-samples",
    type=click.IntRange(0, MAX_CUSTOM_SAMPLES),
    default=0,
    show_default=True,
    help="Samples of own metrics of each machine.",
)
@click.option("--stall", type=click.IntRange(0), default=0, help="Machines that fall silent and recover.")
@click.option("--vanish", type=click.IntRange(0), default=0, help="Machines that are cut off and stay away.")
@click.option("--flap", type=click.IntRange(0), default=0, help="Machines that are cut off and come back.")
@click.option(
    "--trouble-after",
    "trouble_after_seconds",
    type=click.FloatRange(0.0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long those are well before their trouble.",
)
@click.option(
    "--trouble-for",
    "trouble_seconds",
    type=click.FloatRange(0.0),
    default=45.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a stall or an absence lasts.",
)
@click.option(
    "--ramp",
    "ramp_seconds",
    type=click.FloatRange(0.0),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Time over which the machines come up.",
)
@click.option(
    "--duration",
    type=click.FloatRange(min=0.0, min_open=True),
    metavar="SECONDS",
    help="End after this time; by default run until SIGTERM or Ctrl-C.",
)
@click.option("--goodbye/--no-goodbye", default=True, help="At the end, leave properly or all vanish at once.")
@click.option("--tasks/--no-tasks", "runs_tasks", default=True, help="Pretend to run tasks, or only report telemetry.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same machines.")
@click.option("--json", "as_json", is_flag=True, help="Print the state as JSON lines on stdout.")
@join_options
@_data_dir_option("Where the machines keep the certificates for which they join.")
def simulate_command(
    duration: float | None,
    goodbye: bool,
    as_json: bool,
    join_token: str | None,
    join_file: Path | None,
    join_address: str | None,
    data_dir: Path,
    **plan: object,
) -> None:
    """Simulate a fleet of machines, over the real wire with the real session code."""
    _leave_on_signals()
    _hush_grpc()
    from fleetpulse.worker.simulation.fleet import FleetPlan  # noqa: PLC0415 - heavy, and not needed for --help
    from fleetpulse.worker.simulation.run import run_simulation  # noqa: PLC0415

    fleet_plan = FleetPlan(**{**plan, "master": _target(str(plan["master"]))})  # type: ignore[arg-type]  # click checked the types
    if fleet_plan.stall + fleet_plan.vanish + fleet_plan.flap > fleet_plan.workers:
        raise click.UsageError("--stall, --vanish and --flap add up to more machines than --workers")
    if not is_worker_id(f"{fleet_plan.prefix}-{fleet_plan.workers}"):
        raise click.UsageError(f"--prefix {fleet_plan.prefix!r} makes no worker ids: a worker id has {WORKER_ID_RULE}")
    folder = data_dir / "simulated"
    token = token_from(join_token, join_file, has_joined=folder.exists())
    _configure_logging("warning")
    # Thousands of sessions that lose one master say one thing; the state line says it once.
    logging.getLogger("fleetpulse.worker.session").setLevel(logging.ERROR)
    keepers: Mapping[str, Credentials] = {}
    if token is not None or folder.exists():
        from fleetpulse.worker.simulation.credentials import join_all  # noqa: PLC0415 - mostly not needed

        try:
            keepers = join_all(fleet_plan.worker_ids(), folder, token, door_from(join_address, fleet_plan.master))
        except CredentialsError as error:
            raise click.ClickException(str(error)) from error
    run_simulation(fleet_plan, duration, keepers, say_goodbye=goodbye, as_json=as_json)


def docker_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that says where Docker is."""
    return {name: value for name, value in environment.items() if name.startswith("DOCKER_")}


def _registry_config(path: Path | None) -> Path | None:
    """One that can be used; so that a wrong one is one line and no start. Raises ``click.UsageError``."""
    if path is not None:
        from fleetpulse.worker.docker_engine.registries import RegistryConfigError, RegistryLogins  # noqa: PLC0415 - mostly not needed

        try:
            RegistryLogins(path)
        except RegistryConfigError as error:
            raise click.UsageError(str(error)) from error
    return path


def _configure_logging(level: str) -> None:
    logging.basicConfig(
        stream=sys.stderr, level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )


def _leave_on_signals() -> None:
    """Until there is a session that can say goodbye. As process 1 of a container it would be ended by SIGKILL alone."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)


def _leave(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(0)


def _hush_grpc() -> None:
    """Before grpc is loaded: its core would write a line for each handshake that fails. The session says it once."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


def _target(master: str) -> str:
    """A grpc target for HOST:PORT; a wrong one is refused here, and not by a name lookup that never ends."""
    host, colon, port = master.strip().rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) <= 65535):
        raise click.UsageError(f"FLEETPULSE_MASTER={master!r}: expected HOST:PORT, as localhost:50051")
    return f"{host}:{port}"


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise click.UsageError(f"--label {text!r}: expected NAME=VALUE")
    return name, value
