"""``shell``: the ``master> `` prompt, which runs the commands that talk to a master in this process."""

import difflib
import os
import shlex
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint
from pathlib import Path

import click
from click.shell_completion import CompletionItem, ShellComplete

from fleetpulse.master.console.command import CommandGroup, ConsoleCommand, connection_options, data_dir_option
from fleetpulse.master.console.connection import base_url
from fleetpulse.master.console.errors import ExitCode
from fleetpulse.master.console.formatting import one_line

_PROMPT = "master> "
_HISTORY_NAME = "shell_history"


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
    """Runs the prompt until the user leaves it. Returns the exit code."""
    options = ["--url", url, *(["--token", token] if token else []), *(["--no-color"] if no_color else [])]
    interpreter = Interpreter(options)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return run_lines(sys.stdin, interpreter)
    click.echo(one_line(f"{url}: `help` lists the commands, Tab completes, Ctrl-D leaves"))
    read = _line_reader(open_history(data_dir), interpreter)
    while True:
        try:
            interpreter.run(read())
        except KeyboardInterrupt:
            continue  # Ctrl-C clears the line
        except (EOFError, ExitShell):
            return ExitCode.DONE


def run_lines(lines: Iterable[str], interpreter: "Interpreter") -> int:
    """Runs lines. Returns the exit code of the last one."""
    code = 0
    try:
        for line in lines:
            code = interpreter.run(line)
            sys.stdout.flush()
    except ExitShell:
        pass
    return code


def open_history(data_dir: Path) -> Path | None:
    """Makes the history file, readable by this user only as a line may hold a password. ``None`` if that fails."""
    path = data_dir / _HISTORY_NAME
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        click.echo(one_line(f"what you type is not kept: {path}: {error.strerror}"), err=True)
        return None
    return path


def _line_reader(history: Path | None, interpreter: "Interpreter") -> Callable[[], str]:
    """Returns a function that reads a line. It raises ``KeyboardInterrupt`` for Ctrl-C, ``EOFError`` for Ctrl-D."""
    # prompt_toolkit loads slowly, and is only needed on a terminal.
    from prompt_toolkit import PromptSession  # noqa: PLC0415
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion  # noqa: PLC0415
    from prompt_toolkit.document import Document  # noqa: PLC0415
    from prompt_toolkit.history import FileHistory, InMemoryHistory  # noqa: PLC0415

    class ShellCompleter(Completer):
        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
            incomplete, items = interpreter.complete(document.text_before_cursor)
            plain = [item for item in items if item.type == "plain"]
            for item in plain:
                # The only candidate completes the word.
                text = f"{item.value} " if len(plain) == 1 else item.value
                yield Completion(text, -len(incomplete), display=item.value, display_meta=one_line(item.help or ""))

    class ShellHistory(FileHistory):
        def append_string(self, string: str) -> None:
            if not string.startswith(" "):  # as in other shells
                super().append_string(string)

    session: PromptSession[str] = PromptSession(
        _PROMPT, history=InMemoryHistory() if history is None else ShellHistory(str(history)),
        completer=ShellCompleter(), complete_in_thread=True, complete_while_typing=False,
    )  # fmt: skip
    return session.prompt


class ShellGroup(CommandGroup):
    """The commands of this package."""

    def includes(self, entry: EntryPoint) -> bool:
        return entry.value.startswith("fleetpulse.master.console.") and entry.name not in {"shell", "completion"}


class ExitShell(Exception):
    """The user typed ``exit``."""


class Interpreter:
    """Runs lines as commands, all with the same connection options."""

    def __init__(self, options: list[str]) -> None:
        """``options``: inserted after the name of every command, as ``["--url", "…"]``."""
        self._options = options
        self._group = ShellGroup("", help="The commands of the prompt.")

    def run(self, line: str) -> int:
        """Runs a line and returns its exit code. Shows errors. Raises ``ExitShell``."""
        try:
            words = shlex.split(line)
        except ValueError:
            click.echo("Error: a quote is not closed", err=True)
            return ExitCode.WRONG_USAGE
        if words[:1] == ["fleetpulse"]:
            del words[0]
        if not words or words[0].startswith("#"):
            return ExitCode.DONE
        name, *arguments = words
        if name in {"exit", "quit"}:
            raise ExitShell
        if name not in {"help", "?"}:
            return self._run([name, *self._options, *arguments])
        if arguments:
            return self._run([arguments[0], "--help"])
        self._list_commands()
        return ExitCode.DONE

    def complete(self, text: str) -> tuple[str, list[CompletionItem]]:
        """Returns the unfinished word at the end of a text, and its completions."""
        try:
            words = shlex.split(text)
        except ValueError:
            return "", []
        incomplete = words.pop() if words and not text[-1].isspace() else ""
        if words[:1] == ["help"]:
            del words[0]
        if not words:
            names = sorted([*self._names(), "exit", "help"])
            return incomplete, [CompletionItem(name) for name in names if name.startswith(incomplete)]
        completion = ShellComplete(self._group, {}, "", "")
        return incomplete, completion.get_completions([words[0], *self._options, *words[1:]], incomplete)

    def _names(self) -> list[str]:
        return self._group.list_commands(click.Context(self._group))

    def _run(self, words: list[str]) -> int:
        try:
            if words[0] not in self._names():
                similar = difflib.get_close_matches(words[0], self._names(), n=1)
                hint = f"did you mean {similar[0]!r}?" if similar else "`help` lists them"
                raise click.UsageError(f"there is no command {one_line(words[0])!r}; {hint}")
            code = self._group.main(words, prog_name="", standalone_mode=False)
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except (click.Abort, KeyboardInterrupt):
            return ExitCode.INTERRUPTED
        return code if isinstance(code, int) else ExitCode.DONE

    def _list_commands(self) -> None:
        with click.Context(self._group) as ctx:
            for name in self._names():
                command = self._group.get_command(ctx, name)
                click.echo(f"  {name:<10} {'' if command is None else command.get_short_help_str(64)}")
        click.echo("  help       What a command does: help submit\n  exit       Leave, as Ctrl-D does")
