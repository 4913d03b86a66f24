"""Where tokens are kept: one JSON file, which the command line writes and a running master reads."""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from master.access.tokens import Token

NAME = "tokens.json"
_VERSION = 1


class TokenFileError(Exception):
    """The file cannot be read or written, or is none; the message names it and says why."""


class TokenFile:
    """The tokens of one master. Its methods raise ``TokenFileError``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Token]:
        """All that were made and not forgotten; none where there is no file."""
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
        """Write what ``change`` makes of the tokens. One process at a time, all or nothing, on disk when it returns."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked():
                tokens = change(self.read())
                document = {"version": _VERSION, "tokens": [token.to_json() for token in tokens]}
                write_private(self.path, json.dumps(document, indent=1) + "\n")
        except OSError as error:
            raise TokenFileError(f"{self.path}: cannot be written: {error.strerror or error}") from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = os.open(self.path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def write_private(path: Path, text: str) -> None:
    """Replace a file by one that only its owner may read. All or nothing. Raises ``OSError``."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
