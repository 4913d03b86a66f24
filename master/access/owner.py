"""The secret that the command line of the master's own user shows: a file in the data directory, as an ssh key is."""

import contextlib
import os
import stat
from pathlib import Path

from fleetpulse.master.access.roles import Role
from fleetpulse.master.access.tokens import id_in, make_token
from fleetpulse.master.private_files import write_private

NAME = "owner-token"


def owner_secret(data_dir: Path) -> str:
    """The secret of this data directory; made when there is none, or one that others could read. Raises ``OSError``."""
    found = find_owner_secret(data_dir)
    if found is not None:
        return found
    _, secret = make_token("owner", Role.ADMIN, 0.0, None)
    write_private(data_dir / NAME, secret.encode() + b"\n")
    return secret


def find_owner_secret(data_dir: Path) -> str | None:
    """The secret, if this user may read it and no other may; for the command line."""
    with contextlib.suppress(OSError, UnicodeDecodeError), (data_dir / NAME).open(encoding="ascii") as file:
        status = os.fstat(file.fileno())
        secret = file.read(200).strip()
        if status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077 and id_in(secret):
            return secret
    return None
