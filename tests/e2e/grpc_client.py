"""A raw gRPC client: a test controls every message of streams and calls, also invalid ones."""

import itertools
from queue import SimpleQueue
from types import TracebackType
from typing import Any, NamedTuple, Self

import grpc

from fleetpulse.proto import fleetpulse_pb2 as pb

TIMEOUT_SECONDS = 20.0

_CONNECT = "/fleetpulse.v1.Fleet/Connect"
_SEND_HEARTBEAT = "/fleetpulse.v1.Fleet/SendHeartbeat"
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1))

_numbers = itertools.count(1)


class Refusal(NamedTuple):
    """How a call ended."""

    code: grpc.StatusCode
    details: str


class Stream:
    """One ``Connect`` stream."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._up: SimpleQueue[bytes | None] = SimpleQueue()
        connect: grpc.StreamStreamMultiCallable[bytes, pb.MasterMessage] = channel.stream_stream(
            _CONNECT,
            request_serializer=None,  # raw bytes, so that they can be invalid
            response_deserializer=pb.MasterMessage.FromString,
        )
        self._call = connect(iter(self._up.get, None), timeout=3.0 * TIMEOUT_SECONDS)

    def send(self, message: pb.WorkerMessage | bytes) -> None:
        self._up.put(message if isinstance(message, bytes) else message.SerializeToString())

    def register(self, worker_id: str, incarnation_id: str = "one") -> pb.Registered:
        """Send Register and wait for Registered. ``grpc.RpcError`` if it is refused."""
        self.send(pb.WorkerMessage(register=pb.Register(worker_id=worker_id, incarnation_id=incarnation_id)))
        return next(self._call).registered

    def beat(self, heartbeat: pb.Heartbeat) -> None:
        self.send(pb.WorkerMessage(heartbeat=heartbeat))

    def report(self, report: pb.Report) -> pb.ReportAnswer:
        """Sends a report for many workers and waits for the answer."""
        self.send(pb.WorkerMessage(report=report))
        return next(self._call).report_answer

    def next_message(self) -> pb.MasterMessage:
        """Waits for the master's next message."""
        message: pb.MasterMessage = next(self._call)
        return message

    def trailing_metadata(self) -> dict[str, str]:
        """What came with the end of the stream."""
        return {key: str(value) for key, value in self._call.trailing_metadata() or ()}

    def refusal(self) -> Refusal:
        """Waits for the end of the stream and returns its status."""
        try:
            for _ in self._call:
                continue
        except grpc.RpcError:
            pass
        return Refusal(self._call.code(), self._call.details() or "")

    @property
    def is_open(self) -> bool:
        return bool(self._call.is_active())

    def finish(self) -> None:
        """Half-closes the stream."""
        self._up.put(None)

    def cancel(self) -> None:
        self._up.put(None)
        self._call.cancel()


class GrpcClient:
    """A connection to a master; with ``credentials`` over TLS."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        self.channel = (
            grpc.insecure_channel(target, options=_OPTIONS)
            if credentials is None
            else grpc.secure_channel(target, credentials, options=_OPTIONS)
        )
        self._send_heartbeat: grpc.UnaryUnaryMultiCallable[bytes, pb.HeartbeatAck] = self.channel.unary_unary(
            _SEND_HEARTBEAT, request_serializer=None, response_deserializer=pb.HeartbeatAck.FromString
        )
        self._streams: list[Stream] = []

    def stream(self) -> Stream:
        stream = Stream(self.channel)
        self._streams.append(stream)
        return stream

    def send_heartbeat(self, heartbeat: pb.Heartbeat | bytes) -> pb.HeartbeatAck | Refusal:
        """A unary heartbeat."""
        data = heartbeat if isinstance(heartbeat, bytes) else heartbeat.SerializeToString()
        call = self._send_heartbeat.future(data, timeout=TIMEOUT_SECONDS)
        if call.code() is not grpc.StatusCode.OK:
            return Refusal(call.code(), call.details() or "")
        return call.result()

    def send_heartbeat_soon(self, heartbeat: pb.Heartbeat) -> None:
        """A unary heartbeat whose answer nobody waits for."""
        self._send_heartbeat.future(heartbeat.SerializeToString(), timeout=TIMEOUT_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in self._streams:
            stream.cancel()
        self.channel.close()


def a_heartbeat(worker_id: str, incarnation_id: str = "one", **fields: Any) -> pb.Heartbeat:
    """A heartbeat with some readings."""
    readings: dict[str, Any] = {"cpu": pb.Cpu(usage_percent=12.5), "memory": pb.Memory(used_bytes=1, size_bytes=2)}
    return pb.Heartbeat(worker_id=worker_id, incarnation_id=incarnation_id, **(readings | fields))


def new_worker_id() -> str:
    """An id that no other test uses."""
    return f"by-hand-{next(_numbers)}"
