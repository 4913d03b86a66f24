"""The exit codes of every command, and the errors that lead to them.

::

    click.ClickException
    └── ConsoleError            1    the master refused, or the output could not be written
        ├── Unreachable         3    nothing answers, or something that is not a master
        ├── UnknownId           4    no such worker or task
        └── PermanentError      1    a stream ended and trying again would not help

Wrong usage is click's own ``UsageError``, 2.
"""

import enum

import click

from fleetpulse.master.console.formatting import one_line


class ExitCode(enum.IntEnum):
    """Every exit code. With ``--wait`` the exit code of a task can be any number."""

    DONE = 0
    REFUSED = 1
    WRONG_USAGE = 2
    UNREACHABLE = 3
    UNKNOWN_ID = 4
    TASK_CANCELLED = 123
    TASK_FAILED = 125
    INTERRUPTED = 130
    BROKEN_PIPE = 141


EXIT_CODES_HELP = """\b
Exit codes:
  0    done
  1    the master refused, or the output could not be written
  2    wrong usage
  3    the master cannot be reached
  4    no worker or task has this id
  130  Ctrl-C
  141  the program that read the output has ended
  With --wait the task's own, or:
  123  the task was cancelled
  125  the task failed without an exit code
"""


class ConsoleError(click.ClickException):
    """The base of all errors. ``message`` is one line for people, safe to show on a terminal."""

    exit_code = ExitCode.REFUSED

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class Unreachable(ConsoleError):
    """Nothing answers at the address, or something that is not a master."""

    exit_code = ExitCode.UNREACHABLE

    def __init__(self, message: str, *, was_sent: bool = True) -> None:
        """``was_sent``: whether the request may have reached the master."""
        super().__init__(message)
        self.was_sent = was_sent


class UnknownId(ConsoleError):
    """The master knows no worker or task of this id."""

    exit_code = ExitCode.UNKNOWN_ID


class PermanentError(ConsoleError):
    """A stream ended with an error of the client. Trying again would not help."""
