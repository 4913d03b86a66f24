"""The commands that the prompt has: those of the command line that speak to a master, run in this process."""

import difflib
import shlex
from importlib.metadata import entry_points

import click
from click.shell_completion import CompletionItem, ShellComplete

from fleetpulse.master.console.clean import one_line
from fleetpulse.master.console.errors import INTERRUPTED

COMMANDS_GROUP = "fleetpulse.commands"
_OURS = "fleetpulse.master.console."
_LEFT_OUT = frozenset({"shell", "completion"})
_WRONG_USAGE = 2


class ShellGroup(click.Group):
    """The entry points of this package, loaded when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, in order."""
        ours = (one.name for one in entry_points(group=COMMANDS_GROUP) if one.value.startswith(_OURS))
        return sorted(name for name in ours if name not in _LEFT_OUT)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of them, ``None`` if there is none of this name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        (entry,) = entry_points(group=COMMANDS_GROUP, name=cmd_name)
        command = entry.load()
        assert isinstance(command, click.Command)  # nosec B101 # for the type checker
        return command


class Left(Exception):
    """Somebody said ``exit``."""


class Interpreter:
    """Runs lines as commands, all with the same options for the connection."""

    def __init__(self, common: list[str]) -> None:
        """``common``: what every command is given before its own options, as ``["--url", "…"]``."""
        self._common = common
        self._group = ShellGroup("", help="The commands of the prompt.")

    def run(self, line: str) -> int:
        """Run a line; its exit code. Errors are shown. Raises ``Left``."""
        try:
            words = shlex.split(line)
        except ValueError:
            click.echo("Error: a quote is not closed", err=True)
            return _WRONG_USAGE
        if words[:1] == ["fleetpulse"]:
            del words[0]
        if not words or words[0].startswith("#"):
            return 0
        if words[0] in {"exit", "quit"}:
            raise Left
        return self._run(self._help_for(words[1:]) if words[0] in {"help", "?"} else self._with_common(words))

    def complete(self, text: str) -> tuple[str, list[CompletionItem]]:
        """The word at the end of a text, as far as it is there, and what it may become."""
        try:
            words = shlex.split(text)
        except ValueError:
            return "", []
        incomplete = words.pop() if words and not text[-1].isspace() else ""
        if words[:1] == ["help"]:
            words = words[1:]
        if not words:
            names = [*self._group.list_commands(click.Context(self._group)), "exit", "help"]
            items = [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]
            return incomplete, items
        completion = ShellComplete(self._group, {}, "", "")
        return incomplete, completion.get_completions(self._with_common(words), incomplete)

    def _run(self, words: list[str]) -> int:
        if not words:
            return 0
        try:
            self._check(words[0])
            answer = self._group.main(words, prog_name="", standalone_mode=False)
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except (click.Abort, KeyboardInterrupt):
            return INTERRUPTED
        return answer if isinstance(answer, int) else 0

    def _check(self, name: str) -> None:
        names = self._group.list_commands(click.Context(self._group))
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "`help` lists them"
            raise click.UsageError(f"there is no command {one_line(name)!r}; {hint}")

    def _help_for(self, words: list[str]) -> list[str]:
        if words:
            return [words[0], "--help"]
        with click.Context(self._group) as ctx:
            for name in self._group.list_commands(ctx):
                command = self._group.get_command(ctx, name)
                click.echo(f"  {name:<10} {'' if command is None else command.get_short_help_str(64)}")
        click.echo("  help       What a command does: help submit\n  exit       Leave, as Ctrl-D does")
        return []

    def _with_common(self, words: list[str]) -> list[str]:
        return [words[0], *self._common, *words[1:]]
