"""What every command has: its options, its session with the master, and how it ends."""

import functools
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import click

from fleetpulse.master.console.address import DEFAULT_URL, base_url
from fleetpulse.master.console.client import MasterClient
from fleetpulse.master.console.credentials import token_for
from fleetpulse.master.console.errors import INTERRUPTED, READER_GONE, ConsoleError
from fleetpulse.master.console.options import NO_COLOR_OPTION, OUTPUT_OPTIONS, Option, data_dir_option, with_options
from fleetpulse.master.console.screen import Screen, forget_stdout

Function = Callable[..., Any]


class ClientContext(NamedTuple):
    """What a command works with."""

    client: MasterClient
    screen: Screen


class ConsoleCommand(click.Command):
    """A command that never ends with a traceback because of what the world did to it."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; the ends that are no errors of the command become exit codes."""
        try:
            answer = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            forget_stdout()
            ctx.exit(READER_GONE)
        except OSError as error:
            forget_stdout()
            raise ConsoleError(f"{error.strerror or error}") from error
        return answer


_connection_options = (
    click.option("--url", envvar="FLEETPULSE_URL", default=DEFAULT_URL, show_default=True, show_envvar=True,
                 help="Where the master is: a URL, HOST:PORT or :PORT."),
    # Not shown: everybody on the machine may read the flags of a process. The variable is for it.
    click.option("--token", envvar="FLEETPULSE_TOKEN", default=None, hidden=True),
    NO_COLOR_OPTION,
)  # fmt: skip


def connection_options(function: Function) -> Function:
    """Add the options that say where the master is."""
    return with_options(function, _connection_options)


def console_command(
    name: str, cls: type[ConsoleCommand] = ConsoleCommand, **attributes: Any
) -> Callable[[Function], click.Command]:
    """Make a command of a function, which takes a ``ClientContext`` before its own parameters."""

    def decorate(function: Function) -> click.Command:
        @functools.wraps(function)
        def run(*, url: str, token: str | None, no_color: bool, output: str, as_json: bool, **own: Any) -> None:
            client = MasterClient(base_url(url), token_for(base_url(url), token))
            try:
                function(ClientContext(client, Screen("json" if as_json else output, no_color=no_color)), **own)
            finally:
                client.close()

        command = _with_common_options(run, (*OUTPUT_OPTIONS, *_connection_options))
        return click.command(name, cls=cls, **attributes)(command)

    return decorate


def local_command(
    name: str, told: Callable[[], AbstractContextManager[None]], *options: Option
) -> Callable[[Function], click.Command]:
    """Make a command of a function that works on the master's files, past a master. It takes a ``Screen`` and the data
    directory before its own parameters. ``told`` makes a ``ConsoleError`` of what may be wrong with the files."""

    def decorate(function: Function) -> click.Command:
        @functools.wraps(function)
        def run(*, data_dir: Path, no_color: bool, output: str, as_json: bool, **own: Any) -> None:
            with told():
                function(Screen("json" if as_json else output, no_color=no_color), data_dir, **own)

        common = (*options, data_dir_option("The master's data directory."), *OUTPUT_OPTIONS, NO_COLOR_OPTION)
        return click.command(name, cls=ConsoleCommand)(_with_common_options(run, common))

    return decorate


def _with_common_options(run: Any, options: Iterable[Option]) -> Any:
    """The help shows them behind the function's own. click keeps the last one first."""
    own, run.__click_params__ = getattr(run, "__click_params__", []), []
    command: Any = with_options(run, options)
    command.__click_params__ += own
    return command
