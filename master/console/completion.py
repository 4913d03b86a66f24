"""``completion``: what a shell must know to complete commands, options, worker and task ids."""

import click
from click.shell_completion import get_completion_class

from fleetpulse.master.console.command import ConsoleCommand

SHELLS = ("bash", "zsh", "fish")
_PROGRAM = "fleetpulse"
_VARIABLE = "_FLEETPULSE_COMPLETE"


@click.command("completion", cls=ConsoleCommand)
@click.argument("shell", type=click.Choice(SHELLS))
def completion_command(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash:  eval "$(fleetpulse completion bash)"        in ~/.bashrc
    zsh:   eval "$(fleetpulse completion zsh)"         in ~/.zshrc
    fish:  fleetpulse completion fish | source         in ~/.config/fish/config.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # click has one for each of these  # nosec B101 # for the type checker
    completion = kind(click.Group(), {}, _PROGRAM, _VARIABLE)
    # Not source(), which would run bash to find out its version.
    click.echo(completion.source_template % completion.source_vars())
