"""Whether the client of an answer that takes long is still there."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import gevent


class HasFile(Protocol):
    """What is needed of a connection."""

    def fileno(self) -> int: ...


class ClientGone(Exception):
    """The client has closed the connection."""


@contextmanager
def while_client_is_there(connection: HasFile | None) -> Iterator[None]:
    """Within this, the greenlet's wait ends with ``ClientGone`` as soon as the client closes its connection.

    Otherwise that would be seen only when the next piece is sent. A client that sends its next request meanwhile is
    there. ``None``: nothing is known of the connection, and nothing is seen.
    """
    if connection is None:
        yield
        return
    waiting: Any = gevent.getcurrent()
    watcher = gevent.get_hub().loop.io(connection.fileno(), 1)

    def look() -> None:
        gone = has_closed(connection)
        # What there is stays there, and would be told again and again.
        watcher.stop()
        if gone:
            waiting.throw(ClientGone())

    watcher.start(look)
    try:
        yield
    finally:
        watcher.stop()
        watcher.close()


def has_closed(connection: HasFile) -> bool:
    """Whether nothing will come from the client any more. Does not wait, and takes nothing."""
    with plain_socket(connection) as peeking:
        try:
            return peeking.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


def take_no_more(connection: HasFile | None) -> None:
    """Have the web server close the connection after this answer, and not wait for the next request on it."""
    if connection is not None:
        with suppress(OSError), plain_socket(connection) as plain:  # the client may have gone meanwhile
            plain.shutdown(socket.SHUT_RD)


@contextmanager
def plain_socket(connection: HasFile) -> Iterator[socket.socket]:
    """The system's socket of the connection. gevent's own would make an error of its own of a shutdown."""
    plain = socket.socket(fileno=connection.fileno())
    try:
        yield plain
    finally:
        plain.detach()
