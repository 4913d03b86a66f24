"""Who may do what: every path names the least role that it takes."""

from enum import IntEnum


class Role(IntEnum):
    """Each may do what those before it may. Nothing is refused by it yet: the table of routes tells what will be."""

    OPEN = 0
    """Anybody, without saying who."""

    READ = 1
    """Look at workers, tasks and logs."""

    SUBMIT = 2
    """Submit tasks and cancel them."""

    ADMIN = 3
    """Drain and forget workers."""
