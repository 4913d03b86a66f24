"""Which containers are this worker's: a secret label that it gives them, and a note of each id that it was given.

A label alone proves nothing: an image has labels too, and ``docker commit`` copies a container's into one. So a
container counts only if it has the name of its attempt, the secret, and an id that was noted before its start. A
container that was never started needs no note: the worker may have died between the creation and the note.
"""

import contextlib
import errno
import logging
import os
import re
import secrets
from pathlib import Path

from fleetpulse.proto.private_files import make_private_folder, write_private
from fleetpulse.worker.tasks.engine import EngineRefused

_log = logging.getLogger(__name__)

_SECRET_FILE = "owner"  # nosec B105
_SECRET = re.compile(r"[0-9a-f]{32}")
_CONTAINER_ID = re.compile(r"[0-9a-f]{64}")


class ContainerOwner:
    """One worker on one engine. Usable from any thread."""

    def __init__(self, worker_id: str, folder: Path | None = None) -> None:
        """``folder`` keeps the secret (mode 0600) and an empty file for each noted container. Without one, or if it
        cannot be used (logged), a later start does not find the containers of this one.
        """
        self.worker_id = worker_id
        self.secret = secrets.token_hex(16)
        self._folder = folder
        self._noted: set[str] = set()
        if folder is not None:
            try:
                self._load(folder)
            except (OSError, ValueError) as error:
                _log.warning("containers are not recognised after a restart of this worker: %s", error)
                self._folder = None

    def has_noted(self, container_id: str) -> bool:
        return container_id in self._noted

    def note(self, container_id: str) -> None:
        """Before the container's start. Durable on return. Raises ``EngineRefused`` if it cannot be kept."""
        if self._folder is not None and container_id not in self._noted:
            try:
                self._write(self._folder, container_id)
            except OSError as error:
                reason = "disk_full" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "container_failed"
                text = f"this worker cannot note its container in {self._folder}: {error.strerror or error}"
                raise EngineRefused(text, reason) from error
        self._noted.add(container_id)

    def forget(self, container_id: str) -> None:
        """The container is gone."""
        self._noted.discard(container_id)
        if self._folder is not None and _CONTAINER_ID.fullmatch(container_id):
            with contextlib.suppress(OSError):  # a file too many harms nothing
                (self._folder / container_id).unlink(missing_ok=True)

    def _load(self, folder: Path) -> None:
        """Raises ``OSError``, or ``ValueError`` for a secret that is none."""
        make_private_folder(folder)
        path = folder / _SECRET_FILE
        try:
            kept = path.read_text("ascii").strip()
        except FileNotFoundError:
            write_private(path, f"{self.secret}\n".encode())
        else:
            if not _SECRET.fullmatch(kept):
                raise ValueError(f"{path} does not hold 32 hexadecimal digits")
            self.secret = kept
        self._noted = {name for name in os.listdir(folder) if _CONTAINER_ID.fullmatch(name)}  # noqa: PTH208

    @staticmethod
    def _write(folder: Path, container_id: str) -> None:
        if not _CONTAINER_ID.fullmatch(container_id):
            raise OSError(f"{container_id!r} is no id of a container")
        descriptor = os.open(folder / container_id, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.close(descriptor)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
