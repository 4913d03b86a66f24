"""What the CA has given out, as one file: join tokens (hashed) and certificates. Pure but for ``StateFile``."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from fleetpulse.master.errors import ConfigError
from fleetpulse.master.pki.files import STATE_NAME
from fleetpulse.master.private_files import write_private

MAX_EXPIRED = 100
"""Of one worker's certificates that are remembered for a day: with a short life they are thousands."""

_VERSION = 1


class TokenUse(NamedTuple):
    """Who joined with a token: the same key may ask again, because the first answer may have been lost."""

    worker_id: str
    key_fingerprint: str
    serial: str | None = None
    """Of the certificate that it was given last; ``None`` where a former version wrote this."""

    is_revoked: bool = False
    """Whether somebody revoked the worker or a certificate of it since."""


class TokenRecord(NamedTuple):
    """A join token at rest. ``secret_hash`` is the SHA-256 of a secret of 192 random bits, in hexadecimal digits."""

    secret_hash: str
    expires_at: float
    worker_id: str | None
    """The id that it is for; ``PREFIX*`` for all that begin so; ``None`` for any that has no certificate yet."""

    max_uses: int
    uses: tuple[TokenUse, ...] = ()

    def is_for(self, worker_id: str) -> bool:
        """Whether a worker of this id may join with it, as far as the token says."""
        wanted = self.worker_id
        if wanted is None or wanted == worker_id:
            return True
        return wanted.endswith("*") and worker_id.startswith(wanted[:-1])

    def used(self, use: TokenUse) -> "TokenRecord":
        """The same with this use, in place of a former one of the same machine."""
        others = (one for one in self.uses if one[:2] != use[:2])
        return self._replace(uses=(*others, use))

    def revoking(self, worker_ids: set[str]) -> "TokenRecord":
        """The same, but of no use to these workers any more if they have used it."""
        return self._replace(
            uses=tuple(one._replace(is_revoked=True) if one.worker_id in worker_ids else one for one in self.uses)
        )


class IssuedRecord(NamedTuple):
    """A worker's certificate. Times in Unix seconds."""

    worker_id: str
    serial: str
    issued_at: float
    expires_at: float
    revoked_at: float | None = None

    def is_live(self, now: float) -> bool:
        """Whether it lets somebody in."""
        return self.revoked_at is None and self.expires_at > now


class State(NamedTuple):
    """All of it."""

    tokens: tuple[TokenRecord, ...] = ()
    issued: tuple[IssuedRecord, ...] = ()

    def pruned(self, now: float) -> "State":
        """Without what nobody can use any more and nobody asks for: a day after it expired, or after many others."""
        since = now - 86400.0
        expired: Counter[str] = Counter()
        newest_first: list[IssuedRecord] = []
        for one in reversed(self.issued):
            if one.expires_at <= now:
                expired[one.worker_id] += 1
                if one.expires_at <= since or expired[one.worker_id] > MAX_EXPIRED:
                    continue
            newest_first.append(one)
        tokens = tuple(token for token in self.tokens if token.expires_at > since)
        return State(tokens, tuple(reversed(newest_first)))

    def live(self, worker_id: str, now: float) -> tuple[IssuedRecord, ...]:
        """The certificates with which somebody may speak as this worker."""
        return tuple(one for one in self.issued if one.worker_id == worker_id and one.is_live(now))

    def is_in_force(self, use: TokenUse, now: float) -> bool:
        """Whether the certificate that was given for it is live, and the worker was given none since."""
        newest = next((one for one in reversed(self.issued) if one.worker_id == use.worker_id), None)
        return newest is not None and newest.serial == use.serial and newest.is_live(now) and not use.is_revoked

    def using(self, token: TokenRecord, use: TokenUse) -> "State":
        """The same with one more use of this token."""
        return self._replace(tokens=tuple(one.used(use) if one is token else one for one in self.tokens))

    def revoking(self, serials: set[str], now: float) -> "State":
        """The same with these certificates revoked."""
        return self._replace(
            issued=tuple(one._replace(revoked_at=now) if one.serial in serials else one for one in self.issued)
        )


def hashed(secret: bytes) -> str:
    """A secret as it is kept. It has so many random bits that no slow hash is needed."""
    return hashlib.sha256(secret).hexdigest()


class StateFile:
    """Reads and writes the state; ``signature`` changes with every write, whoever wrote."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / STATE_NAME

    def signature(self) -> tuple[int, int, int]:
        """One ``stat``: a file that is replaced is another file. Raises ``OSError``."""
        stat = self._path.stat()
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def read(self) -> State:
        """Raises ``ConfigError`` if it is not what was written, ``OSError`` if it cannot be read."""
        data = self._path.read_bytes()
        try:
            content = orjson.loads(data)
            if content["version"] != _VERSION:
                raise ConfigError(f"{self._path} is of another version of FleetPulse")
            return State(
                tuple(_token(**record) for record in content["tokens"]),
                tuple(IssuedRecord(**record) for record in content["issued"]),
            )
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{self._path} is damaged: {error}") from error

    def write(self, state: State) -> None:
        """As a whole. Raises ``OSError``. For the holder of the lock."""
        content = {
            "version": _VERSION,
            "tokens": [one._asdict() | {"uses": [use._asdict() for use in one.uses]} for one in state.tokens],
            "issued": [one._asdict() for one in state.issued],
        }
        write_private(self._path, orjson.dumps(content))


def _token(uses: Any, **fields: Any) -> TokenRecord:
    return TokenRecord(**fields, uses=tuple(TokenUse(**use) for use in uses))
