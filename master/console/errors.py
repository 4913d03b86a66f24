"""What a command may end with, other than well. The message is one line for people that says what to do next.

::

    click.ClickException
    └── ConsoleError          1    the master said no, or output could not be written
        ├── Unreachable       3    nobody answers, or somebody who is no master
        └── UnknownId         4    no such worker or task

Wrong usage is click's own ``UsageError``, 2.
"""

import click

from fleetpulse.master.console.clean import one_line

SAID_NO = 1
CANNOT_REACH = 3
UNKNOWN_ID = 4
CANCELLED = 123
FAILED_WITHOUT_CODE = 125
INTERRUPTED = 130
READER_GONE = 141
"""As a program ends that SIGPIPE ended."""

EXIT_CODES = """\b
Exit codes:
  0    done
  1    the master said no, or output could not be written
  2    wrong usage
  3    the master cannot be reached
  4    no worker or task has this id
  130  Ctrl-C
  141  whoever read the output has gone
  With --wait the task's own, or:
  123  the task was cancelled
  125  the task failed without an exit code
"""


class ConsoleError(click.ClickException):
    """The base of what goes wrong. Whatever it quotes is safe to show on a terminal."""

    exit_code = SAID_NO

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class Unreachable(ConsoleError):
    """Nobody answers at the address, or no master does."""

    exit_code = CANNOT_REACH

    def __init__(self, message: str, *, was_sent: bool = True) -> None:
        """``was_sent``: whether the request may have come to the master."""
        super().__init__(message)
        self.was_sent = was_sent


class UnknownId(ConsoleError):
    """The master knows no worker, or no task, of this id."""

    exit_code = UNKNOWN_ID
