"""One entry of the audit trail, and its line in the file."""

import json
from collections.abc import Callable
from enum import StrEnum
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
