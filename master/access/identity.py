"""Who asks."""

from typing import NamedTuple

from fleetpulse.master.access.roles import Role


class Identity(NamedTuple):
    """Somebody who may do something, as every request has one: ``req.context.identity``."""

    name: str
    """The token's; for people and for the audit trail. Never a secret."""

    role: Role
    door: str = "token"
    """How it was shown: ``token``, ``session`` (the page's cookie), or ``loopback`` while nobody has made a token."""


ANYBODY = Identity("anonymous", Role.ADMIN, "loopback")
"""Whoever asks a master that nobody has made a token for: who may start containers here is master of all of it."""
