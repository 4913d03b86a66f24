"""The tokens in a JSON file, which the command line writes and the master reads; the owner's secret; page sessions."""

import contextlib
import json
import logging
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from fleetpulse.master.access.tokens import Identity, Role, Token, digest_of, id_in, is_of, make_token
from fleetpulse.proto.private_files import locked, write_private

_LOGGER = logging.getLogger(__name__)

TOKENS_FILE_NAME = "tokens.json"
STATE_FILE_NAME = "access.json"
"""Beside the tokens by default: whether the master is closed, so that losing the tokens does not open it."""

OWNER_FILE_NAME = "owner-token"
OWNER = "owner"
"""The name that the local command line acts under."""

SESSION_LIFETIME_SECONDS = 12 * 3600.0
MAX_SESSIONS = 1000
MAX_SESSIONS_PER_TOKEN = 20
"""A new session ends the oldest: of the same token if that has so many, of all otherwise."""

_VERSION = 1
_RECHECK_SECONDS = 0.5


class TokenFileError(Exception):
    """The token file cannot be read, written or parsed; the message names the file and the reason."""


class TokenFile:
    """The tokens of one master, and whether it was closed by one. Its methods raise ``TokenFileError``.

    A master is closed by its first token. It stays so, whatever happens to the tokens, until ``open`` is called.
    """

    def __init__(self, path: Path, state_path: Path | None = None) -> None:
        self.path = path
        self.state_path = state_path or path.with_name(STATE_FILE_NAME)

    def read(self) -> list[Token]:
        """Returns all tokens; an empty list where there is no file."""
        try:
            document = json.loads(self.path.read_bytes())
            if document["version"] != _VERSION:
                raise TokenFileError(
                    f"{self.path} is of version {document['version']}, which this FleetPulse cannot read"
                )
            return [Token.from_json(data) for data in document["tokens"]]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise TokenFileError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise TokenFileError(f"{self.path} is no file of tokens: {error}") from error

    def change(self, change: Callable[[list[Token]], list[Token]]) -> None:
        """Replaces the tokens by what ``change`` returns: one process at a time, all or nothing, durable on return."""
        with self._changing():
            tokens = change(self.read())
            if tokens:
                self.close()
            self._write(tokens)

    def open(self, check: Callable[[list[Token]], None]) -> None:
        """Removes all tokens and opens the master again, unless ``check`` raises for the tokens that there are."""
        with self._changing():
            check(self.read())
            self._write([])
            self._write_state(is_closed=False)

    def is_closed(self) -> bool | None:
        """Whether the master was closed, or opened again; ``None`` if neither was ever written. A damaged file: yes."""
        try:
            document = json.loads(self.state_path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return True
        return not (isinstance(document, dict) and document.get("closed") is False)

    def requires_auth(self) -> bool:
        """Whether requests need a token."""
        return bool(self.read()) or bool(self.is_closed())

    def close(self) -> None:
        """Writes that the master is closed, if that is not written yet."""
        if not self.is_closed():
            self._write_state(is_closed=True)

    def _write(self, tokens: list[Token]) -> None:
        document = {"version": _VERSION, "tokens": [token.to_json() for token in tokens]}
        write_private(self.path, json.dumps(document, indent=1).encode() + b"\n")

    def _write_state(self, *, is_closed: bool) -> None:
        try:
            self.state_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(self.state_path, json.dumps({"version": _VERSION, "closed": is_closed}).encode() + b"\n")
        except OSError as error:
            raise TokenFileError(f"{self.state_path}: cannot be written: {error.strerror or error}") from error

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with locked(self.path.with_suffix(".lock")):
                yield
        except OSError as error:
            raise TokenFileError(f"{self.path}: cannot be written: {error.strerror or error}") from error


class TokenStore:
    """The tokens as a running master knows them. Called on the hub with every request; re-reads a file that changed.

    ``owner_secret`` is the secret of the master's own user, if there is one. While the file is unreadable, only that
    secret is accepted.
    """

    def __init__(
        self,
        file: TokenFile,
        owner_secret: str | None = None,
        *,
        always_requires_auth: bool = False,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file, self._clock, self._monotonic = file, clock, monotonic
        self._owner_digest = None if owner_secret is None else digest_of(owner_secret)
        self._always_requires_auth = always_requires_auth
        self._signature: tuple[int | None, ...] | None = None
        self._tokens: dict[str, Token] = {}
        self._is_broken = self._is_closed = False
        self._recheck_at = float("-inf")

    @property
    def auth_required(self) -> bool:
        """Whether requests need a token: from the first one on until `fleetpulse token open`, also without the file."""
        self._refresh()
        return self._always_requires_auth or self._is_closed or self._is_broken

    def identify(self, secret: str) -> Identity | None:
        """Returns the holder of the secret; ``None`` for an unknown, expired or revoked one."""
        self._refresh()
        token = self._tokens.get(id_in(secret) or "")
        if token is not None:
            is_valid = is_of(secret, token.digest) and token.is_active(self._clock())
            return Identity(token.name, token.role) if is_valid else None
        if self._owner_digest is not None and is_of(secret, self._owner_digest):
            return Identity(OWNER, Role.ADMIN)
        return None

    def _refresh(self) -> None:
        now = self._monotonic()
        if now < self._recheck_at:
            return
        self._recheck_at = now + _RECHECK_SECONDS
        signature = *_signature(self._file.path), None, *_signature(self._file.state_path)
        if signature == self._signature and not self._is_broken:
            return
        self._signature = signature
        try:
            self._tokens = {token.token_id: token for token in self._file.read()}
            self._is_broken = False
        except TokenFileError as error:
            if not self._is_broken:
                _LOGGER.error("no token is accepted until this is fixed: %s", error)  # noqa: TRY400 - nothing to trace
            self._tokens, self._is_broken = {}, True
        state = self._file.is_closed()
        # Lost files do not open a master that has been closed: only what `token open` wrote does.
        self._is_closed = bool(self._tokens) or (self._is_closed if state is None else state)
        if self._tokens and not state:
            # Tokens of an earlier version, or that a command with another data directory made. Written once.
            try:
                self._file.close()
            except TokenFileError as error:
                _LOGGER.error("%s", error)  # noqa: TRY400 - nothing to trace


def _signature(path: Path) -> tuple[int, ...]:
    """Changes when the file is replaced."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size


def owner_secret(data_dir: Path) -> str:
    """Returns the owner's secret of a data directory; makes one if it is missing or readable by others.

    The command line of the master's own user shows it, as ssh shows a key. Raises ``OSError``.
    """
    found = find_owner_secret(data_dir)
    if found is not None:
        return found
    _, secret = make_token(OWNER, Role.ADMIN, 0.0, None)
    write_private(data_dir / OWNER_FILE_NAME, secret.encode() + b"\n")
    return secret


def find_owner_secret(data_dir: Path) -> str | None:
    """Returns the owner's secret if this user, and no other, may read it. For the command line."""
    with contextlib.suppress(OSError, UnicodeDecodeError), (data_dir / OWNER_FILE_NAME).open(encoding="ascii") as file:
        status = os.fstat(file.fileno())
        secret = file.read(200).strip()
        if status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077 and id_in(secret):
            return secret
    return None


class _Session(NamedTuple):
    secret: str
    expires_at: float


class SessionStore:
    """Kept in memory: sessions end with the master, with their token, and after ``SESSION_LIFETIME_SECONDS``."""

    def __init__(self, store: TokenStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._sessions: dict[str, _Session] = {}

    def begin(self, secret: str) -> tuple[str, Identity] | None:
        """Returns the id and the holder of a new session; ``None`` for a token that is not accepted."""
        identity = self._store.identify(secret)
        if identity is None:
            return None
        same_token = [session_id for session_id, session in self._sessions.items() if session.secret == secret]
        if len(same_token) >= MAX_SESSIONS_PER_TOKEN:
            del self._sessions[same_token[0]]
        elif len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        session_id = secrets.token_urlsafe(32)
        self._sessions[session_id] = _Session(secret, self._clock() + SESSION_LIFETIME_SECONDS)
        return session_id, identity._replace(auth_method="session")

    def identity(self, session_id: str) -> Identity | None:
        """Returns the holder of a session; ``None`` for one that has ended or never began."""
        session = self._sessions.get(session_id)
        if session is None:
            return None
        identity = self._store.identify(session.secret) if self._clock() < session.expires_at else None
        if identity is None:
            del self._sessions[session_id]
            return None
        return identity._replace(auth_method="session")

    def end(self, session_id: str) -> None:
        """Ends a session; does nothing for an unknown one."""
        self._sessions.pop(session_id, None)
