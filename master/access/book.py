"""What a running master knows of tokens."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from fleetpulse.master.access.identity import Identity
from fleetpulse.master.access.roles import Role
from fleetpulse.master.access.token_file import TokenFile, TokenFileError
from fleetpulse.master.access.tokens import Token, digest_of, id_in, is_of

_LOGGER = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
"""So old may what it knows of the file be."""

OWNER = "owner"
"""The name under which the local command line works."""


class TokenStore:
    """Called on the hub, with every request: looks whether the file has changed now and then, and reads it only then.

    ``owner_secret`` is what the command line of the master's own user shows, if there is any. A file that becomes
    unreadable lets nobody in but that one, until it is mended.
    """

    def __init__(
        self,
        file: TokenFile,
        owner_secret: str | None = None,
        *,
        is_always_closed: bool = False,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file, self._clock, self._monotonic = file, clock, monotonic
        self._owner_digest = None if owner_secret is None else digest_of(owner_secret)
        self._is_always_closed = is_always_closed
        self._seen: tuple[int, ...] | None = None
        self._tokens: dict[str, Token] = {}
        self._is_broken = False
        self._look_at = float("-inf")

    @property
    def is_closed(self) -> bool:
        """Whether a request must show a token: as soon as one was made, be it expired or revoked by now."""
        self._look()
        return self._is_always_closed or bool(self._tokens) or self._is_broken

    def identify(self, secret: str) -> Identity | None:
        """Whose secret it is; ``None``: nobody's, or one that is over."""
        self._look()
        token = self._tokens.get(id_in(secret) or "")
        if token is not None:
            is_right = is_of(secret, token.digest)
            return Identity(token.name, token.role) if is_right and token.is_good(self._clock()) else None
        if self._owner_digest is not None and is_of(secret, self._owner_digest):
            return Identity(OWNER, Role.ADMIN)
        return None

    def _look(self) -> None:
        now = self._monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_SECONDS
        seen = _seen(self._file.path)
        if seen == self._seen and not self._is_broken:
            return
        try:
            tokens = {token.token_id: token for token in self._file.read()}
        except TokenFileError as error:
            if not self._is_broken:
                _LOGGER.error("no token is good until this is mended: %s", error)  # noqa: TRY400 - nothing to trace
            self._tokens, self._is_broken, self._seen = {}, True, seen
            return
        self._tokens, self._is_broken, self._seen = tokens, False, seen


def _seen(path: Path) -> tuple[int, ...]:
    """What changes when a file is replaced."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size
