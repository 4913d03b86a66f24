"""Roles, and the tokens that grant them. Pure.

A secret is ``fp_ID_RANDOM``: 8 characters that name the token and are public, and 256 random bits. So many bits
cannot be guessed, so a plain SHA-256 of the secret is stored.
"""

import hashlib
import hmac
import re
import secrets
from enum import IntEnum
from typing import Any, NamedTuple, Self

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
NAME_RULE = "1 to 64 characters, each an ASCII letter, a digit, '.', '_', '@' or '-', the first a letter or a digit"

_ID_BYTES, _SECRET_BYTES = 4, 32
_SECRET = re.compile(r"fp_(?P<id>[0-9a-f]{8})_[A-Za-z0-9_-]{43}")


class Role(IntEnum):
    """Each role includes those before it."""

    OPEN = 0
    """Anybody, without a token."""

    READ = 1
    """Look at workers, tasks and logs."""

    SUBMIT = 2
    """Submit tasks and cancel them."""

    ADMIN = 3
    """Drain and forget workers."""


GRANTED: dict[str, Role] = {role.name.lower(): role for role in (Role.READ, Role.SUBMIT, Role.ADMIN)}
"""The roles that a token can have, by the name that people write."""


class Identity(NamedTuple):
    """Who makes a request: ``req.context.identity``."""

    name: str
    """The token's name; for people and for the audit trail. Never a secret."""

    role: Role
    auth_method: str = "token"
    """How it was shown: ``token``, ``session`` (the page's cookie), or ``loopback`` while no token exists."""


ANYBODY = Identity("anonymous", Role.ADMIN, "loopback")
"""A client of a master without tokens: its own user and root, or whoever reaches it where the operator allowed that."""


class Token(NamedTuple):
    """A token as it is stored. Times are Unix seconds."""

    token_id: str
    name: str
    role: Role
    digest: str
    """SHA-256 of the secret, in hex."""

    created: float
    expires: float | None = None
    revoked: float | None = None

    def is_active(self, now: float) -> bool:
        """Returns whether the token still grants its role."""
        return self.revoked is None and (self.expires is None or now < self.expires)

    def state(self, now: float) -> str:
        """Returns ``active``, ``expired`` or ``revoked``."""
        return "revoked" if self.revoked is not None else "active" if self.is_active(now) else "expired"

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as they are stored."""
        return {**self._asdict(), "role": self.role.name.lower()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Parses stored fields. Raises ``ValueError`` for fields that ``to_json`` did not write."""
        try:
            token = cls(**{**data, "role": GRANTED[data["role"]]})
        except (TypeError, KeyError) as error:
            raise ValueError("a token without what belongs to one") from error
        is_valid = all(isinstance(text, str) for text in (token.token_id, token.name, token.digest))
        is_valid = is_valid and isinstance(token.created, int | float)
        if not is_valid or not all(isinstance(time, int | float | None) for time in (token.expires, token.revoked)):
            raise ValueError("a token of which something is of the wrong type")
        return token


def make_token(name: str, role: Role, now: float, lifetime_seconds: float | None) -> tuple[Token, str]:
    """Returns a new token and its secret, which is not stored. ``name`` obeys ``NAME_RULE``."""
    token_id = secrets.token_hex(_ID_BYTES)
    secret = f"fp_{token_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    expires = None if lifetime_seconds is None else now + lifetime_seconds
    return Token(token_id, name, role, digest_of(secret), now, expires), secret


def is_name(text: str) -> bool:
    """Returns whether the text obeys ``NAME_RULE``."""
    return _NAME.fullmatch(text) is not None


def digest_of(secret: str) -> str:
    """Returns the SHA-256 of a secret, in hex. Accepts any text, also one that UTF-8 cannot encode."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def id_in(secret: str) -> str | None:
    """Returns the token id in a secret; ``None`` for text that is no secret."""
    match = _SECRET.fullmatch(secret)
    return match["id"] if match else None


def is_of(secret: str, digest: str) -> bool:
    """Returns whether the digest is this secret's, in constant time."""
    return hmac.compare_digest(digest_of(secret), digest)
