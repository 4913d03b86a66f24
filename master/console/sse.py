"""Server-sent events, as https://html.spec.whatwg.org/multipage/server-sent-events.html has them."""

import http
import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from fleetpulse.master.console.answers import no_master
from fleetpulse.master.console.client import MasterClient, Query
from fleetpulse.master.console.errors import ConsoleError, UnknownId, Unreachable
from fleetpulse.master.console.patience import PATIENCE_SECONDS, ReconnectPolicy

_MOST_BUFFERED = 64 * 1024 * 1024


class Event(NamedTuple):
    """One event; ``data`` is JSON, ``id`` the newest that there was."""

    kind: str
    data: Any
    id: str | None


def parse(pieces: Iterable[bytes]) -> Iterator[Event]:
    """The events of a stream that comes in pieces of any size. Raises ``ValueError`` where it is no such stream."""
    kind, data, last_id = "message", list[str](), None
    for line in _lines(pieces):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield Event(kind, json.loads("\n".join(data)), last_id)
            kind, data = "message", []
        elif name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            last_id = value


def _lines(pieces: Iterable[bytes]) -> Iterator[str]:
    buffer = b""
    for piece in pieces:
        *complete, buffer = (buffer + piece).split(b"\n")
        for line in complete:
            yield line.removesuffix(b"\r").decode(errors="replace")
        if len(buffer) > _MOST_BUFFERED:
            raise ValueError("a line without end")


def follow(
    client: MasterClient,
    path: str,
    query: Query,
    *,
    is_last: Callable[[Event], bool],
    note: Callable[[str], None],
    sleep: Callable[[float], object] = time.sleep,
    patience_seconds: float = PATIENCE_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Event]:
    """The events of a path up to the last one. A connection that breaks is made again where it broke.

    Raises ``Unreachable`` when that did not work for so long; whatever else the first answer says is raised at once.
    """
    last_id: str | None = None
    has_heard, patience = False, ReconnectPolicy(note, sleep, patience_seconds, clock)
    while True:
        try:
            for event in _once(client, path, query, last_id):
                has_heard, last_id = True, event.id or last_id
                patience.heard()
                yield event
                if is_last(event):
                    return
            reason: ConsoleError = Unreachable(f"the master at {client.url} ended the stream")
        except (UnknownId, PermanentError):
            raise
        except ConsoleError as error:
            if not has_heard:
                raise
            reason = error
        patience.wait(reason)


def _once(client: MasterClient, path: str, query: Query, last_id: str | None) -> Iterator[Event]:
    headers = {"Accept": "text/event-stream"} | ({} if last_id is None else {"Last-Event-ID": last_id})
    with client.stream(path, query, headers) as response:
        if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
            raise no_master(client.url, "it answers no events where a master does")
        try:
            for event in parse(client.pieces(response)):
                if event.kind == "problem":
                    raise _problem(event.data)
                yield event
        except ValueError:
            raise no_master(client.url, "what it sends are no events of a master") from None


def _problem(data: Any) -> ConsoleError:
    """What a master says that cannot go on: later it can, unless the fault is the reader's."""
    known = data if isinstance(data, dict) else {}
    detail, status = str(known.get("detail", "the master cannot go on")), known.get("status", 500)
    is_lasting = isinstance(status, int) and status < http.HTTPStatus.INTERNAL_SERVER_ERROR
    return PermanentError(detail) if is_lasting else ConsoleError(detail)


class PermanentError(ConsoleError):
    """Trying again would not help."""
