"""What sources of own metrics an operator asked for, and the collectors that they make."""

import os
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from fleetpulse.worker.collectors.base import Collector
from fleetpulse.worker.collectors.custom.commands import CommandCollector
from fleetpulse.worker.collectors.custom.plugins import PluginCollector
from fleetpulse.worker.collectors.custom.textfile import TextfileCollector

MAX_COMMANDS = 16
MAX_PLUGINS = 16
"""A heartbeat has room for 64 reports of collectors, those of the files among them."""

NAME_RULE = "letters, digits, '._-', at most 64 of them, the first a letter or a digit"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)

Plugins = Mapping[str, Callable[[], Any]]
Commands = Mapping[str, Sequence[str]]


class BadSource(ValueError):
    """A source that was asked for cannot be one; the message is for who asked."""


class CustomMetrics(NamedTuple):
    """What to ask for own metrics, in this order: of two that say the same, the first is believed."""

    plugins: Plugins = MappingProxyType({})
    """How to load each, by name."""

    commands: Commands = MappingProxyType({})
    """The words of each, by name."""

    command_interval_seconds: float = 15.0
    textfile_dir: Path | None = None
    textfile_max_age_seconds: float | None = None
    environment: Mapping[str, str] = MappingProxyType({})
    """Of commands."""


def own_collectors(own: CustomMetrics) -> tuple[list[Collector], list[CommandCollector]]:
    """All the collectors, and those of them that are to be closed at the end."""
    plugins = [PluginCollector(name, load) for name, load in own.plugins.items()]
    commands = [
        CommandCollector(name, words, own.command_interval_seconds, own.environment)
        for name, words in own.commands.items()
    ]
    files = [TextfileCollector(own.textfile_dir, own.textfile_max_age_seconds)] if own.textfile_dir else []
    return [*plugins, *commands, *files], commands


def wanted_plugins(installed: Plugins, skipped: Collection[str]) -> dict[str, Callable[[], Any]]:
    """Those that are not switched off. Raises ``BadSource``."""
    wanted = {name: load for name, load in installed.items() if name not in skipped}
    for name in wanted:
        _check_name("plug-in", name)
    if len(wanted) > MAX_PLUGINS:
        raise BadSource(f"{len(wanted)} plug-ins are installed; at most {MAX_PLUGINS} are asked: switch some off")
    return wanted


def wanted_commands(written: Iterable[str], folder: Path | None) -> dict[str, tuple[str, ...]]:
    """Of ``NAME=COMMAND``, without a shell, and of the programs in a folder, by their names. Raises ``BadSource``."""
    commands: dict[str, tuple[str, ...]] = {}
    found = [(program.name, (str(program),)) for program in _programs(folder)] if folder else []
    for name, words in [*map(_command, written), *found]:
        _check_name("command", name)
        if name in commands:
            raise BadSource(f"two commands have the name {name}")
        commands[name] = words
    if len(commands) > MAX_COMMANDS:
        raise BadSource(f"{len(commands)} commands are too many: at most {MAX_COMMANDS} are run")
    return commands


def _command(written: str) -> tuple[str, tuple[str, ...]]:
    name, equals, line = written.partition("=")
    try:
        words = tuple(shlex.split(line))
    except ValueError as error:
        raise BadSource(f"{written!r}: {error}") from error
    if not equals or not words:
        raise BadSource(f"{written!r}: expected NAME=COMMAND, as raid='/usr/local/bin/raid-state --all'")
    return name, words


def _programs(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.absolute().iterdir())
    except OSError as error:
        raise BadSource(f"{folder}: {error.strerror or error}") from error
    return [entry for entry in entries if entry.is_file() and os.access(entry, os.X_OK) and entry.name[0] != "."]


def _check_name(kind: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadSource(f"{kind} {name[:80]!a}: a name is made of {NAME_RULE}")
