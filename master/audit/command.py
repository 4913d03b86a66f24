"""What a command on the master's machine changes by itself, past the master, is in the trail as well."""

import os
import pwd
import sys
import time
from collections.abc import Callable
from pathlib import Path

from fleetpulse.master.audit.entry import AuditEntry, AuditOutcome, line_of
from fleetpulse.master.audit.files import FILE_NAME, AuditFiles

_DOOR = "cli"


def record_command(
    data_dir: Path, action: str, target: str, detail: str = "", clock: Callable[[], float] = time.time
) -> None:
    """Append that the user who runs this process did this. Raises ``OSError``.

    ``clock`` gives Unix seconds. The file belongs to whom its folder does, so that the master can go on with it.
    """
    actor = f"user:{_user()}"
    entry = AuditEntry(actor, None, _DOOR, "", action, target, AuditOutcome.OK, "", detail)
    path = data_dir / FILE_NAME
    files = AuditFiles(path, sys.maxsize)  # the master alone turns files over
    files.append(line_of(clock(), entry))
    files.close()
    folder = data_dir.stat()
    if os.geteuid() == 0 and path.stat().st_uid != folder.st_uid:
        os.chown(path, folder.st_uid, folder.st_gid)


def _user() -> str:
    # Not what the environment says, which anybody may set.
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
