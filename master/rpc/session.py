"""One worker's stream: a greenlet that reads it, and a queue of what goes down it.

The reader only receives: each message is handed to the TelemetryManager, which queues it. What ends the stream (the
worker left, broke a rule, was superseded; the master stops) travels through the same queue as what is sent, so the
stream has one end and one reason for it.
"""

import logging
from collections.abc import Iterator
from importlib.metadata import version

import gevent
import grpc
from gevent.queue import Empty, SimpleQueue

from master.config import Terms
from master.errors import (
    FleetPulseError,
    InvalidMessage,
    MasterStopping,
    ProtocolViolation,
    RegistrationTimeout,
    StreamSuperseded,
    UnknownWorker,
)
from master.rpc.codec import Unreadable
from master.telemetry.intake import registration_from
from master.telemetry.manager import TelemetryManager
from proto import fleetpulse_pb2 as pb

_LOGGER = logging.getLogger(__name__)

FIRST_MESSAGE_SECONDS = 10.0
MASTER_VERSION = version("fleetpulse")

_Requests = Iterator[pb.WorkerMessage | Unreadable]


class _End:
    """The worker closed its side of the stream, or the connection broke."""


class SessionTable:
    """The registered sessions by worker id: at most one a worker."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._stopping = False

    def __len__(self) -> int:
        return len(self._sessions)

    def enter(self, session: "Session") -> None:
        """The session speaks for its worker from now on; an older one of the same worker is ended."""
        if self._stopping:
            raise MasterStopping("the master is stopping")
        older = self._sessions.get(session.worker_id)
        self._sessions[session.worker_id] = session
        if older is not None:
            older.end(StreamSuperseded(f"worker {session.worker_id} opened a newer stream"))

    def leave(self, session: "Session") -> bool:
        """Whether the session was the one that spoke for its worker; it is not any more."""
        if self._sessions.get(session.worker_id) is not session:
            return False
        del self._sessions[session.worker_id]
        return True

    def end_all(self) -> None:
        """Let no session in any more, and end those that are open with ``MasterStopping``."""
        self._stopping = True
        for session in list(self._sessions.values()):
            session.end(MasterStopping("the master is stopping"))


class Session:
    """Drives one stream. ``messages`` is what the RPC handler yields from."""

    __slots__ = ("_incarnation_id", "_manager", "_outbox", "_table", "worker_id")

    def __init__(self, manager: TelemetryManager, table: SessionTable) -> None:
        self.worker_id = ""
        self._incarnation_id = ""
        self._manager = manager
        self._table = table
        self._outbox: SimpleQueue[pb.MasterMessage | FleetPulseError | type[_End]] = SimpleQueue()

    def messages(self, requests: _Requests) -> Iterator[pb.MasterMessage]:
        """What goes down the stream, until it ends. Raises the ``FleetPulseError`` that ended it."""
        reader = gevent.spawn(self._read, requests)
        reader.name = "session-reader"
        try:
            yield self._first_message()
            while (item := self._outbox.get()) is not _End:
                yield self._message(item)
        finally:
            self._close()

    def end(self, error: FleetPulseError) -> None:
        """End the stream with this error, after what is queued already."""
        self._outbox.put(error)

    def _first_message(self) -> pb.MasterMessage:
        try:
            return self._message(self._outbox.get(timeout=FIRST_MESSAGE_SECONDS))
        except Empty:
            raise RegistrationTimeout(
                f"nobody registered on this stream within {FIRST_MESSAGE_SECONDS:.0f} s; send Register first"
            ) from None

    @staticmethod
    def _message(item: object) -> pb.MasterMessage:
        if isinstance(item, pb.MasterMessage):
            return item
        if isinstance(item, FleetPulseError):
            raise item
        raise ProtocolViolation("the stream was closed before anyone registered on it")

    def _close(self) -> None:
        if self._table.leave(self):
            self._manager.release_worker(self.worker_id, self._incarnation_id)

    # The reader's greenlet

    def _read(self, requests: _Requests) -> None:
        try:
            self._register(next(requests, None))
            for message in requests:
                self._receive(message)
        except FleetPulseError as error:
            self.end(error)
        except grpc.RpcError:
            # The connection broke or the handler aborted the call: grpc tells the iterator so, and nothing else.
            _LOGGER.debug("worker %s: the stream broke", self.worker_id or "(unregistered)")
        except Exception as error:
            _LOGGER.exception("worker %s: the stream's reader failed", self.worker_id or "(unregistered)")
            self.end(FleetPulseError(f"the master failed on this stream: {type(error).__name__}"))
        finally:
            self._outbox.put(_End)

    def _register(self, first: pb.WorkerMessage | Unreadable | None) -> None:
        if first is None:
            return
        if isinstance(first, Unreadable):
            raise InvalidMessage(first.why)
        kind = first.WhichOneof("message")
        if kind != "register":
            raise ProtocolViolation(f"the first message must be register, not {kind or 'empty'}")
        registration = registration_from(first.register)
        self._manager.register_worker(first.register.worker_id, registration)
        self.worker_id = first.register.worker_id
        self._incarnation_id = registration.incarnation_id
        self._table.enter(self)
        self._outbox.put(pb.MasterMessage(registered=_registered(self._manager.terms)))

    def _receive(self, message: pb.WorkerMessage | Unreadable) -> None:
        if isinstance(message, Unreadable):
            raise InvalidMessage(message.why)
        kind = message.WhichOneof("message")
        if kind == "heartbeat":
            heartbeat = message.heartbeat
            if heartbeat.worker_id != self.worker_id or heartbeat.incarnation_id != self._incarnation_id:
                raise InvalidMessage(f"this stream speaks for worker {self.worker_id} only, and for its incarnation")
            self._manager.process_heartbeat(heartbeat)
        elif kind == "goodbye":
            self._say_goodbye(message.goodbye)
        elif kind == "register":
            raise ProtocolViolation("register was sent twice on one stream")
        # What this master does not know comes from a newer worker, and is none of its business.

    def _say_goodbye(self, goodbye: pb.Goodbye) -> None:
        if not self._table.leave(self):
            return
        reason = ascii(goodbye.reason[:200])
        _LOGGER.info("worker %s said goodbye: %s", self.worker_id, reason)
        try:
            self._manager.unregister_worker(self.worker_id)
        except UnknownWorker:
            _LOGGER.debug("worker %s was forgotten before it said goodbye", self.worker_id)


def _registered(terms: Terms) -> pb.Registered:
    return pb.Registered(
        heartbeat_interval_seconds=terms.heartbeat_interval_seconds,
        inactivity_timeout_seconds=terms.inactivity_timeout_seconds,
        master_version=MASTER_VERSION,
    )
