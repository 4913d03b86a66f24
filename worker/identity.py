"""The ids of the worker, kept in its data directory, and of this start."""

import logging
import re
import secrets
from pathlib import Path

from fleetpulse.proto.private_files import make_private_folder, write_private
from fleetpulse.proto.rules import WORKER_ID_MAX_LENGTH, WORKER_ID_RULE, is_worker_id

_LOGGER = logging.getLogger(__name__)

_FILE_NAME = "worker_id"
_INVALID_CHARACTER = re.compile(r"[^A-Za-z0-9._-]")


class InvalidWorkerId(ValueError):
    """The worker id breaks the rule or cannot be read. The message says where it comes from, and the rule."""


def new_incarnation_id() -> str:
    """32 random hexadecimal digits; a new one for each start of a worker process."""
    return secrets.token_hex(16)


def resolve_worker_id(explicit: str | None, data_dir: Path, hostname: str) -> str:
    """``explicit`` if given, else the id kept in ``data_dir/worker_id``, else one made of ``hostname`` and kept there.

    An explicit id is not kept. ``InvalidWorkerId`` when the chosen one breaks the rule or its file cannot be read: to
    the master another id would be another machine. A directory that cannot be written is only logged; the id is then
    made of the host name at every start.
    """
    if explicit is not None:
        return _valid(explicit, f"the worker id {_quoted(explicit)} is not valid")
    path = data_dir / _FILE_NAME
    kept = _read(path)
    if kept is not None:
        return kept
    worker_id = worker_id_from_hostname(hostname)
    try:
        make_private_folder(data_dir)
        write_private(path, f"{worker_id}\n".encode())
    except OSError as exc:
        _LOGGER.warning("worker id %s is not kept, a new host name will change it: %s", worker_id, exc)
    return worker_id


def worker_id_from_hostname(hostname: str) -> str:
    """Replaces invalid characters by ``-``, drops invalid first ones. ``InvalidWorkerId`` if nothing is left."""
    usable = _INVALID_CHARACTER.sub("-", hostname).lstrip("._-")[:WORKER_ID_MAX_LENGTH]
    return _valid(usable, f"no worker id can be made of the host name {_quoted(hostname)}; give one")


def _valid(worker_id: str, otherwise: str) -> str:
    if not is_worker_id(worker_id):
        raise InvalidWorkerId(f"{otherwise}: a worker id has {WORKER_ID_RULE}")
    return worker_id


def _quoted(text: str) -> str:
    return ascii(text if len(text) <= WORKER_ID_MAX_LENGTH else f"{text[:WORKER_ID_MAX_LENGTH]}...")


def _read(path: Path) -> str | None:
    """The id in the file, or ``None`` where there is no file."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise InvalidWorkerId(f"the worker id in {path} cannot be read: {exc.strerror}") from exc
    text = content.decode("utf-8", "replace").strip()
    return _valid(text, f"{path} holds {_quoted(text)}, which is no worker id; correct or remove the file")
