"""Reading files in folders where others may write: no links, no pipes, no devices, no more than a limit."""

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple


class FoundFile(NamedTuple):
    """A file as it was read: the status belongs to the same open file as the bytes."""

    data: bytes
    status: os.stat_result


class UnusableFile(OSError):
    """The path is a link or no regular file, or the file is too long. ``strerror`` says which, and quotes nothing."""


class OpenFile(NamedTuple):
    """A regular file, open for reading. The caller closes the descriptor."""

    descriptor: int
    status: os.stat_result


def open_regular(path: Path) -> OpenFile:
    """Opens a regular file. Never waits for a writer, as ``open`` does for a pipe.

    Raises ``UnusableFile`` and other ``OSError``. Folders above the file may be links.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnusableFile(error.errno, "is a link", str(path)) from error
        if error.errno == errno.ENXIO:
            raise UnusableFile(error.errno, "is not a regular file", str(path)) from error
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise UnusableFile(errno.EINVAL, "is not a regular file", str(path))
    return OpenFile(descriptor, status)


def read_regular(path: Path, limit_bytes: int) -> FoundFile:
    """Reads a regular file of at most this size. Raises as ``open_regular``, also for a longer file."""
    descriptor, status = open_regular(path)
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise UnusableFile(errno.EFBIG, f"has more than {limit_bytes} bytes", str(path))
    return FoundFile(data, status)
