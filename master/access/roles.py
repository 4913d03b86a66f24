"""Roles: every path names the least that it takes."""

from enum import IntEnum


class Role(IntEnum):
    """Each may do what those before it may."""

    OPEN = 0
    """Anybody, without saying who."""

    READ = 1
    """Look at workers, tasks and logs."""

    SUBMIT = 2
    """Submit tasks and cancel them."""

    ADMIN = 3
    """Drain and forget workers."""


GRANTED: dict[str, Role] = {role.name.lower(): role for role in (Role.READ, Role.SUBMIT, Role.ADMIN)}
"""The roles that a token can have, by the name that people write."""
