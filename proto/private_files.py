"""Files that only their owner may read, replaced atomically, changed under a lock."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def make_private_folder(folder: Path) -> None:
    """Makes the folder, mode 0700, and missing parents. Raises ``OSError``."""
    for one in (folder.parent, folder):
        one.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = folder.parent.stat()
    if os.geteuid() == 0 and folder.stat().st_uid != owner.st_uid:
        os.chown(folder, owner.st_uid, owner.st_gid)


def write_private(path: Path, data: bytes) -> None:
    """Replaces the file atomically and durably, mode 0600. Raises ``OSError``.

    A file that root writes belongs to the owner of the folder, so that the master can read it.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            _give_to_owner(file.fileno(), path.parent)
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):  # the first error is the one to raise
            temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock over all processes and threads that lock this file. Raises ``OSError``."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _give_to_owner(descriptor, path.parent)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _give_to_owner(descriptor: int, folder: Path) -> None:
    if os.geteuid() == 0:
        owner = folder.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
