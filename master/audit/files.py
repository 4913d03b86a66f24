"""Writes the trail's files: appends lines, rotates by size; and records what a local command changes."""

import os
import pwd
import sys
import time
from collections.abc import Callable
from pathlib import Path

from fleetpulse.master.audit.entry import AuditEntry, AuditOutcome, line_of

FILE_NAME = "audit.jsonl"
KEPT_FILES = 5
"""Rotated files, beside the current one."""


def files_of(path: Path) -> list[Path]:
    """Returns the paths of the trail's files, the newest first, whether they exist or not."""
    return [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, KEPT_FILES + 1))]


class AuditFiles:
    """For one thread. Opens the file on the first write, and again after a failure."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._descriptor: int | None = None

    def append(self, lines: bytes) -> None:
        """Writes whole lines. Raises ``OSError``; some lines may have been written then, the last one in part."""
        try:
            descriptor = self._ready(len(lines))
            written = 0
            while written < len(lines):
                written += os.write(descriptor, lines[written:])
        except OSError:
            self._release()
            raise

    def sync(self) -> None:
        """Makes what was written durable. Raises ``OSError``."""
        if self._descriptor is not None:
            try:
                os.fdatasync(self._descriptor)
            except OSError:
                self._release()
                raise

    def close(self) -> None:
        """Syncs and closes the file. Raises ``OSError``."""
        self.sync()
        self._release()

    def _ready(self, length: int) -> int:
        """Returns the descriptor of a file that has room for ``length`` bytes."""
        while True:
            if self._descriptor is None:
                self._descriptor = _open(self._path)
            status = os.fstat(self._descriptor)
            if status.st_nlink == 0:  # somebody removed it
                self._release()
            elif status.st_size == 0 or status.st_size + length <= self._max_bytes:
                return self._descriptor
            else:
                self.close()
                self._rotate()

    def _rotate(self) -> None:
        *newer, _ = files = files_of(self._path)
        for source, target in reversed(list(zip(newer, files[1:], strict=True))):
            if source.exists():
                source.replace(target)

    def _release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def record_command(
    data_dir: Path, action: str, target: str, detail: str = "", clock: Callable[[], float] = time.time
) -> None:
    """Appends an entry for what the user of this process changed without the master. Raises ``OSError``.

    ``clock`` returns Unix seconds. The file keeps the owner of its folder, so that the master can append to it.
    """
    entry = AuditEntry(f"user:{_user()}", None, "cli", "", action, target, AuditOutcome.OK, "", detail)
    path = data_dir / FILE_NAME
    files = AuditFiles(path, sys.maxsize)  # only the master rotates
    files.append(line_of(clock(), entry))
    files.close()
    folder = data_dir.stat()
    if os.geteuid() == 0 and path.stat().st_uid != folder.st_uid:
        os.chown(path, folder.st_uid, folder.st_gid)


def _user() -> str:
    # Not from the environment, which anybody may set.
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _open(path: Path) -> int:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            os.write(descriptor, b"\n")  # ends a line that a crash or a full disk cut off
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
