"""What every command has: its options, its session with the master, and how it ends."""

import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import click

from master.console.address import DEFAULT_URL, base_url
from master.console.client import MasterClient
from master.console.credentials import token_for
from master.console.errors import INTERRUPTED, READER_GONE, ConsoleError
from master.console.screen import FORMATS, Screen, forget_stdout

Function = Callable[..., Any]


class Session(NamedTuple):
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
    click.option("--no-color", is_flag=True, help="No colours; NO_COLOR=1 in the environment does the same."),
)  # fmt: skip
_output_options = (
    click.option("-o", "--output", type=click.Choice(FORMATS), default="table", show_default=True,
                 help="A table, a wide one with everything, or the master's answer as JSON."),
    click.option("--json", "as_json", is_flag=True, help="The same as -o json."),
)  # fmt: skip


def connection_options(function: Function) -> Function:
    """Add the options that say where the master is."""
    for option in reversed(_connection_options):
        function = option(function)
    return function


def console_command(
    name: str, cls: type[ConsoleCommand] = ConsoleCommand, **attributes: Any
) -> Callable[[Function], click.Command]:
    """Make a command of a function, which takes a ``Session`` before its own parameters."""

    def decorate(function: Function) -> click.Command:
        @functools.wraps(function)
        def run(*, url: str, token: str | None, no_color: bool, output: str, as_json: bool, **own: Any) -> None:
            client = MasterClient(base_url(url), token_for(base_url(url), token))
            try:
                function(Session(client, Screen("json" if as_json else output, no_color=no_color)), **own)
            finally:
                client.close()

        command: Any = run
        # click reverses this list; the common options are to be the last that the help shows.
        own_params = getattr(function, "__click_params__", [])
        command.__click_params__ = []
        for option in reversed((*_output_options, *_connection_options)):
            command = option(command)
        command.__click_params__ += own_params
        return click.command(name, cls=cls, **attributes)(command)

    return decorate
