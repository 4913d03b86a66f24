"""SQLite's file: for the eyes of its owner only, and for one master at a time."""

import fcntl
import os
import time
from pathlib import Path

from fleetpulse.master.errors import ConfigError

_POLL_SECONDS = 0.05


class FileLock:
    """Held for as long as the process lives, or until ``release``; the system lets go of it at any kind of death.

    The file stays when the lock is gone: removing it would let two processes lock two files of one name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self, patience_seconds: float) -> None:
        """Raise ``ConfigError`` when another process still holds it after that time. Blocks the calling thread."""
        descriptor = _open_private(self._path)
        deadline = time.monotonic() + patience_seconds
        while not _lock(descriptor):
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
                os.close(descriptor)
                raise ConfigError(
                    f"another master{f' (process {holder})' if holder else ''} uses this database, says {self._path}: "
                    "give each master its own DATABASE_URL or data directory"
                )
            time.sleep(_POLL_SECONDS)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def make_private(path: Path) -> None:
    """Make the file of the database, and its folder, if they are not there. SQLite gives the files that it puts beside
    it the same permissions. Raise ``ConfigError`` when that cannot be."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(_open_private(path))
    except OSError as error:
        raise ConfigError(f"the database {path} cannot be opened: {error.strerror or error}") from error


def _open_private(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
