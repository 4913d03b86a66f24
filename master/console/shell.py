"""``shell``: the ``master> `` prompt."""

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import click

from fleetpulse.master.console.address import base_url
from fleetpulse.master.console.clean import one_line
from fleetpulse.master.console.command import ConsoleCommand, connection_options
from fleetpulse.master.console.options import data_dir_option
from fleetpulse.master.console.shell_commands import Interpreter, Left

PROMPT = "master> "
_HISTORY = "shell_history"


@click.command("shell", cls=ConsoleCommand)
@data_dir_option("Where the lines that were typed are kept.")
@connection_options
def shell_command(data_dir: Path, url: str, token: str | None, no_color: bool) -> None:
    """Open a prompt that takes all these commands, with history and completion.

    Without a terminal it reads lines, and ends with the exit code of the last one.
    """
    if code := run_shell(base_url(url), data_dir, token=token, no_color=no_color):
        click.get_current_context().exit(code)


def run_shell(url: str, data_dir: Path, *, token: str | None = None, no_color: bool = False) -> int:
    """Run the prompt until somebody leaves it; the exit code."""
    common = ["--url", url, *(["--token", token] if token else []), *(["--no-color"] if no_color else [])]
    interpreter = Interpreter(common)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return run_lines(sys.stdin, interpreter)
    click.echo(one_line(f"{url}: `help` lists the commands, Tab completes, Ctrl-D leaves"))
    from fleetpulse.master.console.prompt import reader  # noqa: PLC0415 - prompt_toolkit is only needed where there is a terminal

    read = reader(PROMPT, _history_file(data_dir), interpreter.complete)
    _talk(read, interpreter)
    return 0


def run_lines(lines: Iterable[str], interpreter: Interpreter) -> int:
    """Run line after line; the exit code of the last."""
    code = 0
    try:
        for line in lines:
            code = interpreter.run(line)
            sys.stdout.flush()
    except Left:
        pass
    return code


def _talk(read: Callable[[], str], interpreter: Interpreter) -> None:
    while True:
        try:
            interpreter.run(read())
        except KeyboardInterrupt:
            continue  # Ctrl-C clears the line
        except (EOFError, Left):
            return


def _history_file(data_dir: Path) -> Path | None:
    """Where the lines are kept, for this user's eyes: there may be a password in one. ``None`` where it cannot be."""
    path = data_dir / _HISTORY
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        click.echo(one_line(f"what you type is not kept: {path}: {error.strerror}"), err=True)
        return None
    return path
