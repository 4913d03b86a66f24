"""One entry of the trail, and the line that it is in the file."""

import json
from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple

import orjson

MOST_CHARACTERS = 256
"""Of each text in an entry; of what is longer the beginning is kept."""

ANONYMOUS = "anonymous"
MASTER = "master"
"""Actor and door of what the trail says of itself."""


class AuditOutcome(StrEnum):
    """How it ended for whoever tried."""

    OK = "ok"
    REFUSED = "refused"
    FAILED = "failed"


class AuditEntry(NamedTuple):
    """Somebody did, or tried to do, something. Never holds a body, a token or a value of a task's environment."""

    actor: str
    """The name of a token, ``worker:ID``, ``user:NAME`` of the master's machine, or ``ANONYMOUS``."""

    role: str | None
    door: str
    """``rest``, ``page``, ``rpc`` or ``cli``."""

    client: str
    """The address of the connection's other end."""

    action: str
    """An operation of the table of routes, what a worker did, or what was refused before it was either."""

    target: str
    """A path, or an id."""

    outcome: AuditOutcome
    status: str
    """Of HTTP as ``201``, of gRPC as ``ALREADY_EXISTS``; empty where there is none."""

    detail: str = ""


Record = Callable[[AuditEntry], None]
"""How an adapter hands an entry over. Called on the hub, and never waits."""


def unrecorded(_entry: AuditEntry) -> None:
    """A ``Record`` where there is no trail."""


def line_of(time: float, entry: AuditEntry, repeated: int = 0) -> bytes:
    """The entry in one line of ASCII, whatever is in it: nothing can end the line early or reach a terminal.

    ``time`` in Unix seconds; ``repeated``: for how many equal ones it stands.
    """
    texts = {name: value if value is None else _bounded(value) for name, value in entry._asdict().items()}
    line = json.dumps({"time": round(time, 3), **texts, "repeated": repeated}, separators=(",", ":"))
    return line.encode("ascii") + b"\n"


def needle_of(field: str, value: str) -> bytes:
    """What is in every line whose field has this value."""
    return f'"{field}":{json.dumps(_bounded(value))},'.encode("ascii")


def fields_of(line: bytes) -> dict[str, Any] | None:
    """The fields of a line; ``None`` for one that is torn, or none of ours."""
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(found, dict):
        return None
    is_ours = all(isinstance(found.get(name), kind) for name, kind in _KIND_BY_FIELD.items())
    return {name: found.get(name) for name in _KIND_BY_FIELD} if is_ours else None


_KIND_BY_FIELD: dict[str, Any] = {
    "time": int | float,
    **dict.fromkeys(AuditEntry._fields, str),
    "role": str | None,
    "repeated": int,
}


def _bounded(text: str) -> str:
    # A lone surrogate, as of a path that is not UTF-8, is no text to whoever reads the file.
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"
