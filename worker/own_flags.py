"""The flags of the worker's command that say where own metrics come from."""

import math
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fleetpulse.worker.collectors.custom.sources import CustomMetrics


def own_metrics_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where own metrics come from."""
    options = (
        click.option("--plugins/--no-plugins", "uses_plugins", envvar="FLEETPULSE_PLUGINS", default=True,
                     show_default=True, show_envvar=True, help="Ask installed plug-ins for metrics."),
        click.option("--skip-plugin", "skipped_plugins", multiple=True, metavar="NAME",
                     envvar="FLEETPULSE_SKIP_PLUGIN", show_envvar=True, help="All plug-ins but this; may be repeated."),
        click.option("--metrics-command", "metrics_commands", multiple=True, metavar="NAME=COMMAND",
                     help="A command that prints metrics as Prometheus' text; no shell; may be repeated."),
        click.option("--metrics-dir", envvar="FLEETPULSE_METRICS_DIR", show_envvar=True,
                     type=click.Path(path_type=Path), help="A folder of such programs."),
        click.option("--metrics-interval", "metrics_interval_seconds", type=click.FloatRange(min=1.0, max=86400.0),
                     default=15.0, show_default=True, metavar="SECONDS", envvar="FLEETPULSE_METRICS_INTERVAL",
                     show_envvar=True, help="How often those run; each may take as long, 10 s at most."),
        click.option("--textfile-dir", envvar="FLEETPULSE_TEXTFILE_DIR", show_envvar=True,
                     type=click.Path(path_type=Path), help="A folder of *.prom files with metrics."),
        click.option("--textfile-max-age", "textfile_max_age_seconds", type=click.FloatRange(min=0.0),
                     default=172_800.0, show_default=True, metavar="SECONDS", envvar="FLEETPULSE_TEXTFILE_MAX_AGE",
                     show_envvar=True, help="Since when a file may not have been written; 0: for ever."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def own_metrics_from(
    environment: Mapping[str, str],
    *,
    uses_plugins: bool,
    skipped_plugins: tuple[str, ...],
    metrics_commands: tuple[str, ...],
    metrics_dir: Path | None,
    metrics_interval_seconds: float,
    textfile_dir: Path | None,
    textfile_max_age_seconds: float,
) -> "CustomMetrics":
    """What the flags ask for. Raises ``click.UsageError``."""
    from fleetpulse.worker.collectors.custom import sources  # noqa: PLC0415 - heavy, and not needed for --help
    from fleetpulse.worker.collectors.custom.plugins import PLUGINS_GROUP, installed_plugins  # noqa: PLC0415

    if math.isnan(metrics_interval_seconds) or math.isnan(textfile_max_age_seconds):
        raise click.UsageError("nan is no number of seconds")
    try:
        installed = installed_plugins(entry_points(group=PLUGINS_GROUP)) if uses_plugins else {}
        return sources.CustomMetrics(
            plugins=sources.wanted_plugins(installed, skipped_plugins),
            commands=sources.wanted_commands(metrics_commands, metrics_dir),
            command_interval_seconds=metrics_interval_seconds,
            textfile_dir=textfile_dir,
            textfile_max_age_seconds=textfile_max_age_seconds or None,
            environment=commands_environment(environment),
        )
    except sources.BadSource as error:
        raise click.UsageError(str(error)) from error


def commands_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What commands for own metrics get of it: all but the project's settings, which may hold secrets."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith("FLEETPULSE_") and name != "DATABASE_URL"
    }
