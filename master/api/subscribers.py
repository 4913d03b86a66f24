"""Server-sent events: answers without an end of their own, and the clients that are subscribed to them.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import logging
import socket
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Protocol, Self

import falcon
import gevent

from fleetpulse.master.addresses import Clients
from fleetpulse.master.api.answers import encoded
from fleetpulse.master.api.problems import STATUS_BY_ERROR, Rejection
from fleetpulse.master.errors import RETRY_AFTER_SECONDS, AccessEnded, FleetPulseError, MasterStopping
from fleetpulse.master.hub_queue import give_way

_LOGGER = logging.getLogger(__name__)

MAX_SUBSCRIBERS = 500
"""Each holds a connection and a greenlet."""

MAX_PER_CLIENT = 100
CHECK_SECONDS = 1.0
"""Between two checks of who is still allowed to read."""

KEEPALIVE_SECONDS = 15.0
STOPPING = "the master is stopping; come back in a moment"
ENDED = "what this was asked with is not good any more: it was revoked, has expired or was signed out"

_CHECKS_PER_TURN = 64
"""Checks after which other greenlets have their turn."""

_RETRY = b"retry: 2000\n\n"
"""Milliseconds after which a browser connects again."""

_KEEPALIVE = b": still here\n\n"
"""A comment, by which both ends see that the other one is there."""


class HasFile(Protocol):
    """A connection."""

    def fileno(self) -> int: ...


class Revocable(Protocol):
    """An answer without an end of its own."""

    def revoke(self, reason: FleetPulseError) -> None:
        """Ends the answer soon, with the reason as its last event. Does not wait; the first call counts."""


class ClientGone(Exception):
    """The client has closed the connection."""


class Subscribers:
    """The open answers of one kind; ``doing`` is what their readers do, in words. Lives on the hub.

    While there are any a greenlet runs, which revokes those that are not allowed any more.
    """

    def __init__(
        self,
        limit: int = MAX_SUBSCRIBERS,
        doing: str = "follow logs",
        clients: Clients = Clients(),  # noqa: B008 - it keeps nothing
        limit_per_client: int = MAX_PER_CLIENT,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        """``clients`` says which addresses are one client."""
        self._limit = limit
        self._doing = doing
        self._clients = clients
        self._limit_per_client = limit_per_client
        self._check_seconds = check_seconds
        self._entries: dict[Revocable, tuple[str | None, Callable[[], bool]]] = {}
        """By subscriber, the name of its client, ``None`` of one without a limit; and whether it is still allowed."""
        self._by_client: Counter[str] = Counter()
        self._groups: list[Subscribers] = []
        self._checking: gevent.Greenlet[..., None] | None = None
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._entries)

    def group(self, limit: int, doing: str) -> "Subscribers":
        """Returns others, with a limit of their own, that are closed with these."""
        group = Subscribers(limit, doing, self._clients, self._limit_per_client, self._check_seconds)
        self._groups.append(group)
        return group

    def add(self, subscriber: Revocable, address: str, is_still_allowed: Callable[[], bool]) -> None:
        """Adds the subscriber of a client; ``is_still_allowed`` is called on the hub, so it must be quick.

        Raises ``MasterStopping`` once closed, and ``Rejection`` past the limit of all or of one client.
        """
        if self._is_closed:
            raise MasterStopping(STOPPING)
        if len(self._entries) >= self._limit:
            detail = f"{len(self._entries)} readers {self._doing} already, which is as many as the master serves"
            raise Rejection(503, "readers", detail, RETRY_AFTER_SECONDS)
        name = self._clients.name(address)
        if name is not None:
            if self._by_client[name] >= self._limit_per_client:
                most = self._limit_per_client
                detail = f"{most} readers of this client {self._doing} already, as many as one may have"
                raise Rejection(429, "client_readers", detail, RETRY_AFTER_SECONDS)
            self._by_client[name] += 1
        self._entries[subscriber] = name, is_still_allowed
        if self._checking is None:
            self._checking = gevent.spawn(self._check_access)
            self._checking.name = "subscribers-access"

    def remove(self, subscriber: Revocable) -> None:
        """Does nothing for one that is not there."""
        name, _ = self._entries.pop(subscriber, (None, None))
        if name is not None:
            self._by_client[name] -= 1
            if not self._by_client[name]:
                del self._by_client[name]
        if not self._entries and self._checking is not None:
            self._checking.kill(block=False)
            self._checking = None

    def close(self) -> None:
        """Revokes all, and refuses new ones from now on. Does not wait."""
        self._is_closed = True
        for subscriber in list(self._entries):
            subscriber.revoke(MasterStopping(STOPPING))
        for group in self._groups:
            group.close()

    def _check_access(self) -> None:
        """Body of the greenlet."""
        while True:
            gevent.sleep(self._check_seconds)
            for number, (subscriber, (_, is_still_allowed)) in enumerate(list(self._entries.items()), start=1):
                try:
                    if not is_still_allowed():
                        subscriber.revoke(AccessEnded(ENDED))
                except Exception:
                    _LOGGER.exception("whether one may still %s could not be checked", self._doing)
                if number % _CHECKS_PER_TURN == 0:
                    give_way()


class EventStream(ABC):
    """An answer of server-sent events, iterated once, in the greenlet of its request.

    The constructor adds it to the subscribers, and raises what ``Subscribers.add`` raises.
    """

    def __init__(
        self, name: str, req: falcon.Request, subscribers: Subscribers, keepalive_seconds: float = KEEPALIVE_SECONDS
    ) -> None:
        self._name = name
        self._subscribers = subscribers
        self._keepalive_seconds = keepalive_seconds
        self._connection: HasFile | None = req.env.get("gunicorn.socket")
        self._waiting: Any = None
        self._revoked: FleetPulseError | None = None
        self._iterator = self._all_events()
        check: Callable[[falcon.Request], bool] = req.context.get("is_still_allowed") or (lambda _req: True)
        subscribers.add(self, req.remote_addr, partial(check, req))

    @abstractmethod
    def _events(self) -> Iterator[bytes]:
        """Yields the events from first to last. Calls ``_wait`` between them."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        return next(self._iterator)

    def close(self) -> None:
        """Called by the web server when the answer is over, whatever happened."""
        self._iterator.close()
        self._subscribers.remove(self)

    def revoke(self, reason: FleetPulseError) -> None:
        """Ends the events soon, with a last one that says why. Does not wait; the first call counts."""
        if self._revoked is None:
            self._revoked = reason
            gevent.get_hub().loop.run_callback(self._interrupt, reason)

    def _interrupt(self, reason: FleetPulseError) -> None:
        if self._waiting is not None:
            self._waiting.throw(reason)

    def _raise_if_revoked(self) -> None:
        if self._revoked is not None:
            raise self._revoked

    def _wait(self, wait: Callable[[float], bool]) -> Iterator[bytes]:
        """Calls ``wait`` with a timeout in seconds; yields a keepalive if it returns false. Raises when revoked."""
        self._raise_if_revoked()
        self._waiting = gevent.getcurrent()
        try:
            with while_connected(self._connection):
                has_changes = wait(self._keepalive_seconds)
        finally:
            self._waiting = None
        if not has_changes:
            yield _KEEPALIVE

    def _all_events(self) -> Generator[bytes, None, None]:
        try:
            yield _RETRY
            yield from self._events()
        except ClientGone:
            return
        except FleetPulseError as error:
            yield event_bytes("problem", {"status": STATUS_BY_ERROR.get(type(error), 500), "detail": str(error)})
            if isinstance(error, MasterStopping) and self._connection is not None:
                # Or the web server would wait for the next request on it.
                with suppress(OSError), plain_socket(self._connection) as plain:  # the client may have gone
                    plain.shutdown(socket.SHUT_RD)
        except Exception:
            _LOGGER.exception("%s failed", self._name)
            yield event_bytes("problem", {"status": 500, "detail": "the master failed on this; its log says why"})


def begin_events(resp: falcon.Response) -> None:
    """Sets the headers of an answer of events."""
    resp.content_type = "text/event-stream; charset=utf-8"
    resp.cache_control = ("no-store",)
    resp.set_header("X-Accel-Buffering", "no")  # proxies would hold events back otherwise


def event_bytes(kind: str | None, body: object, event_id: str | None = None) -> bytes:
    """Returns one event. ``body``: as for ``answers.encoded``, or bytes that are JSON already."""
    # JSON holds no line break, so it is one line of data.
    data = body if isinstance(body, bytes) else encoded(body)
    kind_line = b"" if kind is None else b"event: %b\n" % kind.encode()
    id_line = b"" if event_id is None else b"id: %b\n" % event_id.encode()
    return b"%b%bdata: %b\n\n" % (kind_line, id_line, data)


@contextmanager
def while_connected(connection: HasFile | None) -> Iterator[None]:
    """Within this, the greenlet's wait ends with ``ClientGone`` as soon as the client closes its connection.

    Otherwise that would be seen only when the next piece is sent. A client that sends its next request meanwhile is
    connected. ``None``: the connection is not known, and nothing is seen.
    """
    if connection is None:
        yield
        return
    waiting: Any = gevent.getcurrent()
    watcher = gevent.get_hub().loop.io(connection.fileno(), 1)

    def check() -> None:
        gone = _is_closed(connection)
        # What has arrived stays there, and would call this again and again.
        watcher.stop()
        if gone:
            waiting.throw(ClientGone())

    watcher.start(check)
    try:
        yield
    finally:
        watcher.stop()
        watcher.close()


@contextmanager
def plain_socket(connection: HasFile) -> Iterator[socket.socket]:
    """The system's socket of the connection. gevent's own would raise an error of its own for a shutdown."""
    plain = socket.socket(fileno=connection.fileno())
    try:
        yield plain
    finally:
        plain.detach()


def _is_closed(connection: HasFile) -> bool:
    """Whether nothing will come from the client any more. Does not wait, and takes nothing."""
    with plain_socket(connection) as peeking:
        try:
            return peeking.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
