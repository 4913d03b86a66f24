"""Which worker this is (kept for ever) and which start of it this is (new every time)."""

import logging
import re
import secrets
from pathlib import Path

from fleetpulse.proto.rules import WORKER_ID_MAX_LENGTH, WORKER_ID_RULE, is_worker_id
from fleetpulse.worker.files import write_private

_log = logging.getLogger(__name__)

_FILE_NAME = "worker_id"
_REFUSED = re.compile(r"[^A-Za-z0-9._-]")
_REFUSED_AT_THE_START = "._-"
_INCARNATION_BYTES = 16


class InvalidWorkerId(ValueError):
    """No worker id can be had from where it was asked for. The message says where that is, and the rule."""


def new_incarnation_id() -> str:
    """32 random hexadecimal digits; one for each start of a worker process."""
    return secrets.token_hex(_INCARNATION_BYTES)


def resolve_worker_id(explicit: str | None, data_dir: Path, hostname: str) -> str:
    """``explicit`` if given, else the id kept in ``data_dir/worker_id``, else one made of ``hostname`` and kept there.

    An explicit id is not kept. ``InvalidWorkerId`` when the one that counts breaks the rule or its file cannot be read:
    another id in its place would be another machine to the master. A directory that cannot be written is only logged;
    the id is then the host name's at every start.
    """
    if explicit is not None:
        return _valid(explicit, f"the worker id {_quoted(explicit)} is not valid")
    path = data_dir / _FILE_NAME
    kept = _read(path)
    if kept is not None:
        return kept
    worker_id = worker_id_from_hostname(hostname)
    try:
        # A half-written file would stop the next start.
        write_private(path, f"{worker_id}\n".encode())
    except OSError as exc:
        _log.warning("worker id %s is not kept, a new host name will change it: %s", worker_id, exc)
    return worker_id


def worker_id_from_hostname(hostname: str) -> str:
    """A refused character becomes ``-``; what may not be first is dropped. ``InvalidWorkerId`` if nothing is left."""
    usable = _REFUSED.sub("-", hostname).lstrip(_REFUSED_AT_THE_START)[:WORKER_ID_MAX_LENGTH]
    return _valid(usable, f"no worker id can be made of the host name {_quoted(hostname)}; give one")


def _valid(worker_id: str, otherwise: str) -> str:
    if not is_worker_id(worker_id):
        raise InvalidWorkerId(f"{otherwise}: a worker id has {WORKER_ID_RULE}")
    return worker_id


def _quoted(text: str) -> str:
    return ascii(text if len(text) <= WORKER_ID_MAX_LENGTH else f"{text[:WORKER_ID_MAX_LENGTH]}...")


def _read(path: Path) -> str | None:
    """The id in the file, or None where there is no file."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise InvalidWorkerId(f"the worker id in {path} cannot be read: {exc.strerror}") from exc
    text = content.decode("utf-8", "replace").strip()
    return _valid(text, f"{path} holds {_quoted(text)}, which is no worker id; correct or remove the file")
