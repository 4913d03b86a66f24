"""The files of the trail, as the thread that writes them has them: appended to, and turned over by size."""

import os
from pathlib import Path

FILE_NAME = "audit.jsonl"
KEPT_FILES = 5
"""Full ones, beside the one that is written."""


def files_of(path: Path) -> list[Path]:
    """Where the parts of the trail are, the newest first."""
    return [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, KEPT_FILES + 1))]


class AuditFiles:
    """For one thread. Opened when something is to be written, and again after a failure."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._descriptor: int | None = None

    def append(self, lines: bytes) -> None:
        """Write whole lines. Raises ``OSError``; then some of them may be there, the last one torn."""
        try:
            descriptor = self._ready(len(lines))
            written = 0
            while written < len(lines):
                written += os.write(descriptor, lines[written:])
        except OSError:
            self._let_go()
            raise

    def sync(self) -> None:
        """Make durable what was written. Raises ``OSError``."""
        if self._descriptor is not None:
            try:
                os.fdatasync(self._descriptor)
            except OSError:
                self._let_go()
                raise

    def close(self) -> None:
        """``sync``, and let go of the file. Raises ``OSError``."""
        self.sync()
        self._let_go()

    def _ready(self, length: int) -> int:
        """The file with room for so many bytes."""
        while True:
            if self._descriptor is None:
                self._descriptor = _opened(self._path)
            status = os.fstat(self._descriptor)
            if status.st_nlink == 0:  # somebody took it away
                self._let_go()
            elif status.st_size == 0 or status.st_size + length <= self._max_bytes:
                return self._descriptor
            else:
                self.close()
                self._turn_over()

    def _turn_over(self) -> None:
        *newer, _ = files = files_of(self._path)
        for source, target in reversed(list(zip(newer, files[1:], strict=True))):
            if source.exists():
                source.replace(target)

    def _let_go(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _opened(path: Path) -> int:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            os.write(descriptor, b"\n")  # after a line that was torn when the process died or the disk was full
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
