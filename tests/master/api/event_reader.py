"""Server-sent events, read one by one."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.master.api.web_server import Client


class Event(NamedTuple):
    """``kind`` is ``message`` for a piece of log, as a browser has it, and ``comment`` for a comment."""

    kind: str
    data: Any
    event_id: str | None = None


class EventReader(Client):
    """One who reads a stream of them; to be iterated for its events."""

    def __init__(self, address: tuple[str, int], path: str, *lines: str) -> None:
        super().__init__(address)
        self.request("GET", path, *lines)
        self.answered = self.head()
        self._text = b""

    def __iter__(self) -> Iterator[Event]:
        while (event := self.next_event()) is not None:
            yield event

    def next_event(self) -> Event | None:
        """Wait for one; ``None`` at the end."""
        while b"\n\n" not in self._text:
            piece = self.chunk()
            if not piece:
                assert self._text == b""
                return None
            self._text += piece
        event, _, self._text = self._text.partition(b"\n\n")
        fields = dict(line.partition(": ")[::2] for line in event.decode().split("\n"))
        if "retry" in fields:
            return self.next_event()
        if "" in fields:
            return Event("comment", fields[""])
        return Event(fields.get("event", "message"), json.loads(fields["data"]), fields.get("id"))

    def take(self, number: int) -> list[Event]:
        found = [event for _ in range(number) if (event := self.next_event()) is not None]
        assert len(found) == number
        return found
