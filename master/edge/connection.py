"""A client's connection as gunicorn sees it: a socket, of which is known what is awaited from it, and since when."""

import errno
import socket
import struct
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, Self

import gevent
import gevent.ssl

from fleetpulse.master.edge.audit import REQUEST
from fleetpulse.master.edge.refusals import MAX_HEAD_BYTES, SLOW_HEAD, HeadTooLarge, Refusal

LINGER_SECONDS = 1.0
MAX_LINGER_BYTES = 4 * 1024 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class ConnectionEvents(Protocol):
    """What a connection needs of the door."""

    idle_seconds: float
    head_seconds: float
    answer_seconds: float

    def waits(self, connection: "Connection") -> None: ...

    def is_served(self, connection: "Connection") -> None: ...

    def reject(self, refusal: Refusal, address: str, action: str) -> None: ...

    def fails_handshake(self, connection: "Connection", why: str) -> None: ...

    def count(self, reason: str) -> None: ...


class Connection:
    """Wraps a socket of gevent's. Used by the connection's greenlet, but for ``cut``.

    As a context manager it bounds the wait for the next request: how long the client may say nothing, and from its
    first byte on, how long the head may take.
    """

    __slots__ = (
        *("_head_bytes", "_is_cut", "_is_hurried", "_is_waiting", "_minder", "_patience", "_socket", "_turn"),
        *("address", "client", "has_paid"),
    )

    def __init__(self, sock: Any, address: str, client: str | None, minder: ConnectionEvents) -> None:
        """``address`` is the other end, ``client`` who is counted; ``None``: nobody."""
        self.address, self.client = address, client
        self._socket = sock
        sock.settimeout(minder.answer_seconds)
        self._minder = minder
        self.has_paid = True
        """Whether a first request is counted already, with the connection."""

        self._is_waiting = self._is_hurried = self._is_cut = False
        self._head_bytes = 0
        self._patience: gevent.Timeout | None = None
        self._turn = -1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    # The wait for a request

    def __enter__(self) -> Self:
        self._is_waiting, self._is_hurried = True, False
        self._head_bytes = 0
        self._socket.settimeout(None)
        self._patience = gevent.Timeout.start_new(self._minder.idle_seconds)
        self._minder.waits(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Ends quietly when the client was too slow: gunicorn closes a connection on which no request came."""
        patience, self._patience = self._patience, None
        if patience is not None:
            patience.close()
        self._is_waiting = False
        self._socket.settimeout(self._minder.answer_seconds)
        self._minder.is_served(self)
        if error is None or error is not patience:
            return False
        if self._head_bytes:
            self.refuse(SLOW_HEAD)
        return True

    # For gunicorn

    def recv(self, size: int) -> bytes:
        data: bytes
        if not self._is_waiting:
            return self._recv_body(size)
        if self._head_bytes and not self._is_hurried:
            self._hurry()
        data = self._socket.recv(size)
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise HeadTooLarge
        return data

    def _hurry(self) -> None:
        """The head has begun, and is not complete."""
        self._is_hurried = True
        if self._patience is not None:
            self._patience.close()
        self._patience = gevent.Timeout.start_new(self._minder.head_seconds)

    def _recv_body(self, size: int) -> bytes:
        loop = gevent.get_hub().loop
        if self._turn == loop.iteration:
            # There is always more of it; others have their turn.
            gevent.sleep(0)
        self._turn = loop.iteration
        data: bytes = self._socket.recv(size)
        return data

    def sendall(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except TimeoutError as error:
            self._minder.count("answer_not_taken")
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            raise BrokenPipeError(errno.EPIPE, "the client does not take its answer") from error

    # For who is in charge

    def shake_hands(self, context: gevent.ssl.SSLContext, seconds: float) -> bool:
        """Begin TLS; whether there is TLS now. The connection is to be closed if not.

        A client that goes away before it says anything has asked nothing, and is refused nothing.
        """
        self._minder.waits(self)
        has_spoken = False
        try:
            with gevent.Timeout(seconds, TimeoutError(f"it did not end within {seconds:g} seconds")):
                has_spoken = bool(self._socket.recv(1, socket.MSG_PEEK))
                if has_spoken:
                    self._socket = context.wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
                    self._socket.do_handshake()
        except OSError as error:
            if not self._is_cut and (has_spoken or isinstance(error, TimeoutError)):
                self._minder.fails_handshake(self, getattr(error, "reason", None) or error.strerror or str(error))
            return False
        finally:
            self._minder.is_served(self)
        return has_spoken

    def refuse(self, refusal: Refusal) -> None:
        """Refuse what came, or was to come. The connection is to be closed then."""
        self._minder.reject(refusal, self.address, REQUEST)
        self.tell(refusal)

    def tell(self, refusal: Refusal) -> None:
        """Answer, and see to it that the answer arrives. The connection is to be closed then."""
        with suppress(OSError):
            self.sendall(refusal.answer(closes=True))
            self.linger()

    def linger(self) -> None:
        """Say that nothing more comes, and take what the client still sends, within bounds.

        The system would throw an answer away together with what was not read.
        """
        taken = 0
        with suppress(OSError), gevent.Timeout(LINGER_SECONDS, False):  # type: ignore[arg-type]  # False: end quietly
            self._socket.shutdown(socket.SHUT_WR)
            while taken < MAX_LINGER_BYTES and (data := self._socket.recv(64 * 1024)):
                taken += len(data)
                gevent.sleep(0)

    def cut(self) -> None:
        """Have the wait for a request end as if the client had closed. Does not switch.

        A request that is there already is answered.
        """
        self._is_cut = True
        plain = socket.socket(fileno=self._socket.fileno())
        try:
            with suppress(OSError):  # the client may have gone meanwhile
                plain.shutdown(socket.SHUT_RD)
        finally:
            plain.detach()
