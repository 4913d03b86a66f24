"""Who runs a process: the names of its user and of its command, and nothing of its arguments."""

import pwd
from collections.abc import Callable
from pathlib import Path

from fleetpulse.proto import fleetpulse_pb2 as pb

_MAX_KNOWN_USERS = 1000


def user_name(uid: int) -> str:
    """The name of a user of this machine, or its number. May ask a directory service, and wait for it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


class ProcessNames:
    """Looks processes up in ``proc``. Each user is looked up once. Used from one thread at a time."""

    def __init__(self, proc: Path = Path("/proc"), user_name: Callable[[int], str] = user_name) -> None:
        self._proc, self._user_name = proc, user_name
        self._users: dict[int, str] = {}

    def fill_in(self, process: pb.GpuProcess) -> None:
        """Adds user and command. Leaves out what is hidden, or outside the container of this worker."""
        folder = self._proc / str(process.pid)
        try:
            process.command = (folder / "comm").read_text("utf-8", "backslashreplace").rstrip("\n")
            process.user = self._user(folder.stat().st_uid)
        except OSError:  # it has ended, or is hidden
            return

    def _user(self, uid: int) -> str:
        if uid not in self._users:
            if len(self._users) >= _MAX_KNOWN_USERS:
                self._users.clear()
            self._users[uid] = self._user_name(uid)
        return self._users[uid]
