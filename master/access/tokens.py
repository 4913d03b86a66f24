"""Tokens: a secret that its holder keeps, and the record by which the master knows it.

A secret is ``fp_ID_RANDOM``: 8 characters that name the record and are no secret, and 256 random bits. Against so many
bits nobody guesses, so a plain SHA-256 of them is enough to keep.
"""

import hashlib
import hmac
import re
import secrets
from typing import Any, NamedTuple, Self

from fleetpulse.master.access.roles import GRANTED, Role

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
NAME_RULE = "1 to 64 characters, each an ASCII letter, a digit, '.', '_', '@' or '-', the first a letter or a digit"

_ID_BYTES, _SECRET_BYTES = 4, 32
_SECRET = re.compile(r"fp_(?P<id>[0-9a-f]{8})_[A-Za-z0-9_-]{43}")


class Token(NamedTuple):
    """What is kept of one. Times are Unix seconds."""

    token_id: str
    name: str
    role: Role
    digest: str
    """SHA-256 of the secret, in hex."""

    created: float
    expires: float | None = None
    revoked: float | None = None

    def is_good(self, now: float) -> bool:
        """Whether it still gives its role."""
        return self.revoked is None and (self.expires is None or now < self.expires)

    def state(self, now: float) -> str:
        """``active``, ``expired`` or ``revoked``."""
        return "revoked" if self.revoked is not None else "active" if self.is_good(now) else "expired"

    def to_json(self) -> dict[str, Any]:
        """As it is written."""
        return {**self._asdict(), "role": self.role.name.lower()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """As it was written. Raises ``ValueError`` for what nobody here wrote."""
        try:
            token = cls(**{**data, "role": GRANTED[data["role"]]})
            ok = all(isinstance(text, str) for text in (token.token_id, token.name, token.digest))
            ok = ok and isinstance(token.created, int | float)
            ok = ok and all(isinstance(time, int | float | None) for time in (token.expires, token.revoked))
        except (TypeError, KeyError) as error:
            raise ValueError("a token without what belongs to one") from error
        if not ok:
            raise ValueError("a token of which something is of the wrong type")
        return token


def make_token(name: str, role: Role, now: float, lifetime_seconds: float | None) -> tuple[Token, str]:
    """A new one, and its secret, which nobody can tell again. ``name`` obeys ``NAME_RULE``."""
    token_id = secrets.token_hex(_ID_BYTES)
    secret = f"fp_{token_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    expires = None if lifetime_seconds is None else now + lifetime_seconds
    return Token(token_id, name, role, digest_of(secret), now, expires), secret


def is_name(text: str) -> bool:
    """Whether it obeys ``NAME_RULE``."""
    return _NAME.fullmatch(text) is not None


def digest_of(secret: str) -> str:
    """What is kept of a secret. Of any text: one that cannot be encoded is nobody's, and no error."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def id_in(secret: str) -> str | None:
    """Which token a secret says it is of; ``None`` for what is no secret."""
    match = _SECRET.fullmatch(secret)
    return match["id"] if match else None


def is_of(secret: str, digest: str) -> bool:
    """Whether the digest is this secret's. Takes the same time for every wrong one."""
    return hmac.compare_digest(digest_of(secret), digest)
