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
from typing import Self

import click

from fleetpulse.master.console.formatting import one_line


class ExitCode(enum.IntEnum):
    """Every exit code, with its meaning. With ``--wait`` the exit code of a task can be any number."""

    DONE = 0, "done"
    REFUSED = 1, "the master refused, or the output could not be written"
    WRONG_USAGE = 2, "wrong usage"
    UNREACHABLE = 3, "the master cannot be reached"
    UNKNOWN_ID = 4, "no worker, task or token has this id"
    TASK_CANCELLED = 123, "with --wait: the task was cancelled"
    TASK_FAILED = 125, "with --wait: the task failed without an exit code"
    INTERRUPTED = 130, "Ctrl-C"
    BROKEN_PIPE = 141, "the program that read the output has ended"

    def __new__(cls, value: int, meaning: str) -> Self:
        code = int.__new__(cls, value)
        code._value_ = value
        code.meaning = meaning
        return code

    meaning: str


_LINES = "\n".join(f"  {code:<4d} {code.meaning}" for code in ExitCode)
EXIT_CODES_HELP = f"\b\nExit codes:\n{_LINES}\n  With --wait any other code is the task's own.\n"


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
