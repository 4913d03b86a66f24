"""What the commands share: their options, their connection to the master or its files, and how they end."""

import functools
import math
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import platformdirs

from fleetpulse.master.console.connection import DEFAULT_URL, base_url, token_source
from fleetpulse.master.console.errors import ConsoleError, ExitCode, Unreachable
from fleetpulse.master.console.screen import FORMATS, Screen, discard_stdout

if TYPE_CHECKING:
    from fleetpulse.master.console.client import MasterClient

Function = Callable[..., Any]
Option = Callable[[Function], Function]

COMMANDS_GROUP = "fleetpulse.commands"
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*(b|[kmgt]?)(?:(?<=[kmgt])i?b)?", re.IGNORECASE)
_MEBIBYTES = {"": 1.0, "b": 1 / 1024**2, "k": 1 / 1024, "m": 1.0, "g": 1024.0, "t": 1024.0**2}

_no_color_option = click.option(
    "--no-color", is_flag=True, help="No colours; NO_COLOR=1 in the environment does the same."
)
_output_options = (
    click.option("-o", "--output", type=click.Choice(FORMATS), default="table", show_default=True,
                 help="A table, a wide one with everything, or JSON."),
    click.option("--json", "as_json", is_flag=True, help="The same as -o json."),
)  # fmt: skip
_connection_options = (
    click.option("--url", envvar="FLEETPULSE_URL", default=DEFAULT_URL, show_default=True, show_envvar=True,
                 help="Where the master is: a URL, HOST:PORT or :PORT."),
    # Hidden: everybody on the machine can read the flags of a process. The variable is for it.
    click.option("--token", envvar="FLEETPULSE_TOKEN", default=None, hidden=True),
    _no_color_option,
)  # fmt: skip


def data_dir_option(help_text: str) -> Option:
    """``--data-dir``."""
    return click.option(
        "--data-dir", envvar="FLEETPULSE_DATA_DIR", show_envvar=True, type=click.Path(path_type=Path),
        default=lambda: platformdirs.user_state_path("fleetpulse"), show_default="per-user state directory",
        help=help_text,
    )  # fmt: skip


def with_options(function: Function, options: Iterable[Option]) -> Function:
    """Adds options, which the help shows in this order after the function's own."""
    own: list[click.Parameter] = getattr(function, "__click_params__", [])
    command: Any = function
    command.__click_params__ = []
    for option in reversed((*options,)):
        command = option(command)
    command.__click_params__ += own
    return command  # type: ignore[no-any-return] # click's decorators return what they get


def connection_options(function: Function) -> Function:
    """Adds the options that say where the master is."""
    return with_options(function, _connection_options)


class Parsed(click.ParamType):  # type: ignore[type-arg] # not generic before click 8.5
    """The type of an option whose value a function parses. The function raises ``ValueError``, or an error of click."""

    def __init__(self, name: str, parse: Callable[[str], Any], expected: str = "") -> None:
        self.name = name
        self._parse = parse
        self._expected = expected

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the parsed value."""
        try:
            return self._parse(value) if isinstance(value, str) else value
        except ValueError:
            self.fail(f"expected {self._expected}, not {value!r}", param, ctx)


def _quantity(pattern: re.Pattern[str], factors: dict[str, float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        match = pattern.fullmatch(text.strip())
        if match is None:
            raise ValueError
        return float(match[1]) * factors[(match[2] or "").lower()]

    return parse


def _mebibytes(text: str) -> float:
    size = _quantity(_MEMORY, _MEBIBYTES)(text)
    return size if size.is_integer() or not text.strip()[-1].isalpha() else math.ceil(size)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def _not_empty(text: str) -> str:
    if not text:
        raise ValueError
    return text


DURATION = Parsed("duration", _quantity(_DURATION, _SECONDS), "a duration such as 90s, 15m or 2h")
MEMORY = Parsed("size", _mebibytes, "MiB, or a size such as 512M or 2G")
NUMBER = Parsed("number", _finite, "a number")
NOT_EMPTY = Parsed("text", _not_empty, "some text; leave the option out for the default")


def pairs(option: str, given: Iterable[str]) -> dict[str, str]:
    """``NAME=VALUE`` as a map. Raises ``click.UsageError``."""
    return {name: values[-1] for name, values in multiple_pairs(option, given).items()}


def multiple_pairs(option: str, given: Iterable[str]) -> dict[str, list[str]]:
    """``NAME=VALUE`` as a map from each name to all its values. Raises ``click.UsageError``."""
    found: dict[str, list[str]] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise click.UsageError(f"{option} takes NAME=VALUE, not {text!r}")
        found.setdefault(name, []).append(value)
    return found


class CommandGroup(click.Group):
    """The entry points of the group ``fleetpulse.commands``, loaded when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, sorted."""
        return sorted(entry.name for entry in entry_points(group=COMMANDS_GROUP) if self.includes(entry))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Loads a command; ``None`` if there is none of this name."""
        found = (entry for entry in entry_points(group=COMMANDS_GROUP, name=cmd_name) if self.includes(entry))
        return next((entry.load() for entry in found), None)

    def includes(self, entry: EntryPoint) -> bool:
        """Whether a command belongs to this group."""
        return True


class ClientContext(NamedTuple):
    """What a command works with."""

    client: "MasterClient"
    screen: Screen


def for_each(ids: Iterable[str], act: Callable[[str], None]) -> None:
    """Acts on every id, whatever becomes of the others, and shows each error. Ends the command with the exit code of
    the last error. Raises ``Unreachable`` at once: nothing would become of the rest.
    """
    code = ExitCode.DONE
    for one in ids:
        try:
            act(one)
        except Unreachable:
            raise
        except ConsoleError as error:
            error.show()
            code = error.exit_code
    if code:
        click.get_current_context().exit(code)


class ConsoleCommand(click.Command):
    """A command that ends without a traceback on Ctrl-C, a closed pipe and errors of files."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt:
            ctx.exit(ExitCode.INTERRUPTED)
        except BrokenPipeError:
            discard_stdout()
            ctx.exit(ExitCode.BROKEN_PIPE)
        except OSError as error:
            discard_stdout()
            raise ConsoleError(f"{error.strerror or error}") from error
        return result


def console_command(name: str, cls: type[ConsoleCommand] = ConsoleCommand) -> Callable[[Function], click.Command]:
    """Makes a command of a function that takes a ``ClientContext`` before its own parameters."""

    def decorate(function: Function) -> click.Command:
        @functools.wraps(function)
        def run(*, url: str, token: str | None, no_color: bool, output: str, as_json: bool, **own: Any) -> None:
            from fleetpulse.master.console.client import MasterClient  # noqa: PLC0415 - a master does not load requests

            client = MasterClient(base_url(url), token_source(base_url(url), token))
            try:
                function(ClientContext(client, Screen("json" if as_json else output, no_color=no_color)), **own)
            finally:
                client.close()

        return click.command(name, cls=cls)(with_options(run, (*_output_options, *_connection_options)))

    return decorate


class LocalContext(NamedTuple):
    """What a command works with that changes the master's files, without asking a master."""

    screen: Screen
    data_dir: Path

    def record(self, action: str, target: str, detail: str = "") -> None:
        """Adds an entry to the audit trail. If it cannot be written, says so: the action is already done."""
        from fleetpulse.master.audit.entries import record_command  # noqa: PLC0415 - as above

        try:
            record_command(self.data_dir, action, target, detail)
        except OSError as error:
            self.screen.note(f"the audit trail cannot be written: {error.strerror or error}")


def local_command(
    group: click.Group,
    name: str,
    *,
    errors: Callable[[], AbstractContextManager[None]],
    options: Iterable[Option] = (),
) -> Callable[[Function], click.Command]:
    """Makes a command of ``group`` of a function that takes a ``LocalContext`` before its own parameters.

    ``errors``: a context manager that turns the errors of the files into ``ConsoleError``.
    """

    def decorate(function: Function) -> click.Command:
        @functools.wraps(function)
        def run(*, data_dir: Path, no_color: bool, output: str, as_json: bool, **own: Any) -> None:
            with errors():
                function(LocalContext(Screen("json" if as_json else output, no_color=no_color), data_dir), **own)

        common = (*options, data_dir_option("The master's data directory."), *_output_options, _no_color_option)
        command = click.command(name, cls=ConsoleCommand)(with_options(run, common))
        group.add_command(command)
        return command

    return decorate
