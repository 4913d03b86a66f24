"""Options that several commands have."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
import platformdirs

from fleetpulse.master.console.screen import FORMATS

Option = Callable[[Callable[..., Any]], Callable[..., Any]]

OUTPUT_OPTIONS: tuple[Option, ...] = (
    click.option("-o", "--output", type=click.Choice(FORMATS), default="table", show_default=True,
                 help="A table, a wide one with everything, or JSON."),
    click.option("--json", "as_json", is_flag=True, help="The same as -o json."),
)  # fmt: skip
NO_COLOR_OPTION: Option = click.option(
    "--no-color", is_flag=True, help="No colours; NO_COLOR=1 in the environment does the same."
)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_MEBIBYTES = {"": 1.0, "k": 1 / 1024, "m": 1.0, "g": 1024.0, "t": 1024.0**2}


def data_dir_option(what: str) -> Option:
    """``--data-dir``, with ``what`` it is in the help."""
    return click.option(
        "--data-dir", envvar="FLEETPULSE_DATA_DIR", show_envvar=True, type=click.Path(path_type=Path),
        default=lambda: platformdirs.user_state_path("fleetpulse"), show_default="per-user state directory", help=what,
    )  # fmt: skip


def with_options(function: Callable[..., Any], options: Iterable[Option]) -> Callable[..., Any]:
    """The function with these options, which the help shows in this order."""
    for option in reversed((*options,)):
        function = option(function)
    return function


def pairs(option: str, given: Iterable[str]) -> dict[str, str]:
    """``NAME=VALUE`` as a map. Raises ``click.UsageError``."""
    found: dict[str, str] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise click.UsageError(f"{option} takes NAME=VALUE, not {text!r}")
        found[name] = value
    return found


def choices(option: str, given: Iterable[str]) -> dict[str, list[str]]:
    """``NAME=VALUE`` as a map to all the values that a name was given. Raises ``click.UsageError``."""
    found: dict[str, list[str]] = {}
    for text in given:
        for name, value in pairs(option, [text]).items():
            found.setdefault(name, []).append(value)
    return found


class _Parsed(click.ParamType):  # type: ignore[type-arg] # not generic before click 8.5
    """A value of an option, parsed by a function that raises ``ValueError``."""

    def __init__(self, name: str, parse: Callable[[str], Any], expected: str) -> None:
        self.name = name
        self._parse = parse
        self._expected = expected

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The parsed value."""
        try:
            return self._parse(value) if isinstance(value, str) else value
        except ValueError:
            self.fail(f"expected {self._expected}, not {value!r}", param, ctx)


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError
    return float(match[1]) * _SECONDS[match[2]]


def _mebibytes(text: str) -> float:
    match = _MEMORY.fullmatch(text.strip())
    if match is None:
        raise ValueError
    return float(match[1]) * _MEBIBYTES[match[2].lower()]


DURATION = _Parsed("duration", _seconds, "a duration such as 90s, 15m or 2h")
MEMORY = _Parsed("size", _mebibytes, "MiB, or a size such as 512M or 2G")
