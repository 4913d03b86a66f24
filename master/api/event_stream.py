"""Server-sent events: the form of an answer that does not end.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import falcon
import orjson

RETRY = b"retry: 2000\n\n"
"""After so many milliseconds a browser connects again."""

HEARTBEAT = b": still here\n\n"
"""A comment, by which both ends see that the other one is there."""


def begin_events(resp: falcon.Response) -> None:
    """Set the headers of an answer of events."""
    resp.content_type = "text/event-stream; charset=utf-8"
    resp.cache_control = ("no-store",)
    resp.set_header("X-Accel-Buffering", "no")  # proxies would hold events back otherwise


def event_bytes(kind: str | None, body: bytes | object, event_id: str | None = None) -> bytes:
    """One event. ``body`` is JSON, or what becomes it."""
    # JSON holds no line break, so it is one line of data.
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    kind_line = b"" if kind is None else b"event: %b\n" % kind.encode()
    id_line = b"" if event_id is None else b"id: %b\n" % event_id.encode()
    return b"%b%bdata: %b\n\n" % (kind_line, id_line, data)
