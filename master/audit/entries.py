"""Entries of the audit trail, and the files that hold them: appends lines, rotates by size."""

import json
import os
import pwd
import sys
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

MAX_CHARACTERS = 256
"""Of each text in an entry; longer texts are cut."""

ANONYMOUS = "anonymous"
MASTER = "master"
"""Actor and source of the trail's entries about itself."""


class AuditOutcome(StrEnum):
    """How the action ended for the actor."""

    OK = "ok"
    REFUSED = "refused"
    FAILED = "failed"


class AuditEntry(msgspec.Struct, frozen=True):
    """Somebody did, or tried to do, something. Never holds a body, a token or a value of a task's environment."""

    actor: str
    """A token's name, `worker:ID`, `user:NAME` of the master's machine, `anonymous`; `master` of the trail itself."""
    role: str | None
    """What the actor may do; null of workers, users, and where nobody is known."""
    source: str
    """`http`, `page` of a browser that signed in, `grpc`, `cli` of a command that changed a file; `master`."""
    client: str
    """The address of the connection's other end."""
    action: str
    """The name of an operation of this reference, or what a worker did; `connect` or `request` of what was
    refused before it came to one; `(none)` where there is no such thing."""
    target: str
    """A path, or an id."""
    outcome: AuditOutcome
    status: str
    """Of HTTP as `201`, of gRPC as `ALREADY_EXISTS`; empty where TLS did not begin."""
    detail: str = ""


class AuditRecord(AuditEntry, frozen=True, kw_only=True):
    """Somebody did, or tried to do, something."""

    time: Annotated[float, Meta(description="Unix seconds by the master's clock")]
    repeated: Annotated[int, Meta(ge=0)]
    """Not 0: it stands for so many that were refused alike within a second, after one that has its own entry."""


Record = Callable[[AuditEntry], None]
"""Takes an entry from an adapter. Called on the hub, and never waits."""


def unrecorded(_entry: AuditEntry) -> None:
    """A ``Record`` where there is no trail."""


def line_of(time: float, entry: AuditEntry, repeated: int = 0) -> bytes:
    """Returns the entry as one line of ASCII, whatever it holds: no text ends the line early or reaches a terminal.

    ``time`` in Unix seconds; ``repeated``: for how many equal entries it stands.
    """
    texts = {name: value if value is None else _cut(value) for name, value in msgspec.structs.asdict(entry).items()}
    line = json.dumps({"time": round(time, 3), **texts, "repeated": repeated}, separators=(",", ":"))
    return line.encode("ascii") + b"\n"


def needle_of(field: str, value: str) -> bytes:
    """Returns what is in every line whose field has this value."""
    return f'"{field}":{json.dumps(_cut(value))},'.encode("ascii")


def record_of(line: bytes) -> AuditRecord | None:
    """Parses a line; returns ``None`` for one that is torn or malformed. Takes the key ``door`` of older files too."""
    if b'"door":' in line:  # within a text the quotes would be escaped
        for old, new in _RENAMED.items():
            line = line.replace(old, new)
    try:
        return _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


_DECODER = msgspec.json.Decoder(AuditRecord)
_RENAMED = {b'"door":"rest"': b'"source":"http"', b'"door":"rpc"': b'"source":"grpc"', b'"door":': b'"source":'}
"""In this order."""


def _cut(text: str) -> str:
    # A lone surrogate, as in a path that is not UTF-8, cannot be decoded again.
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}…"


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
