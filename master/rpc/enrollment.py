"""``Join`` and ``Renew``: certificates for workers. Handlers for grpc's loop; the CA works in a thread of its own."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError

from fleetpulse.master.audit.entry import AuditEntry, AuditOutcome, Record, unrecorded
from fleetpulse.master.errors import FleetPulseError, InvalidMessage, StoreUnavailable, TooManyAttempts
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.pki.authority import Authority
from fleetpulse.master.pki.certificates import request_from
from fleetpulse.master.rpc.audit import entry_of, told
from fleetpulse.master.rpc.bridge import HubBridge
from fleetpulse.master.rpc.peer import peer_certificate
from fleetpulse.master.rpc.status import status_of
from fleetpulse.master.rpc.stream import Call
from fleetpulse.proto import fleetpulse_pb2 as pb

M = TypeVar("M", pb.JoinRequest, pb.RenewRequest)

_LOGGER = logging.getLogger(__name__)

MAX_REFUSALS = 10
"""Of one address within a minute; after that it is not even listened to."""

_MINUTE_SECONDS = 60.0
_MAX_ADDRESSES = 1024


class Attempts:
    """Refused attempts by address, of the last minute. Bounded: the address that was refused longest ago goes first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._refusals: OrderedDict[str, list[float]] = OrderedDict()

    def check(self, address: str) -> None:
        """Raise ``TooManyAttempts`` if it has to wait."""
        since = self._clock() - _MINUTE_SECONDS
        recent = [at for at in self._refusals.get(address, ()) if at > since]
        if len(recent) >= MAX_REFUSALS:
            raise TooManyAttempts("too many attempts were refused; wait a minute")

    def refused(self, address: str) -> None:
        """One more."""
        self._refusals[address] = [*self._refusals.pop(address, ()), self._clock()][-MAX_REFUSALS:]
        while len(self._refusals) > _MAX_ADDRESSES:
            self._refusals.popitem(last=False)


class Enrollment:
    """Built on the hub; all else belongs to grpc's loop."""

    def __init__(
        self,
        authority: Authority,
        instruments: Instruments,
        bridge: HubBridge,
        attempts: Attempts,
        record: Record = unrecorded,
    ) -> None:
        self._authority = authority
        self._record = record
        self._instruments = instruments
        self._bridge = bridge
        self._attempts = attempts
        # One: they wait for one lock, and grpc's loop must not wait with them.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ca")

    def close(self) -> None:
        """Begin nothing new."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def join(self, data: bytes, call: Call) -> bytes:
        """A machine with a token asks for its first certificate."""
        address = _address(call.peer())
        named = ""

        def work() -> list[bytes]:
            nonlocal named
            request = _parsed(pb.JoinRequest, data)
            named = request_from(request.csr).worker_id
            return self._authority.join(request.token, request.csr)

        try:
            self._attempts.check(address)
            chain = await self._answer("Join", "join", work)
        except FleetPulseError as error:
            if not isinstance(error, TooManyAttempts | StoreUnavailable):
                self._attempts.refused(address)
            self._bridge.call(self._record, _refused("join", named, call, error))
            return await self._refuse("Join", error, call)
        self._bridge.call(self._record, entry_of("join", named, named, call.peer()))
        return chain

    async def renew(self, data: bytes, call: Call) -> bytes:
        """A worker asks for its next certificate."""
        holder = peer_certificate(call)
        worker_id = "" if holder is None else holder.worker_id

        def work() -> list[bytes]:
            return self._authority.renew(holder, _parsed(pb.RenewRequest, data).csr)

        try:
            chain = await self._answer("Renew", "renew", work)
        except FleetPulseError as error:
            self._bridge.call(self._record, _refused("renew", worker_id, call, error))
            return await self._refuse("Renew", error, call)
        self._bridge.call(self._record, entry_of("renew", worker_id, worker_id, call.peer()))
        return chain

    async def _answer(self, method: str, how: str, work: Callable[[], list[bytes]]) -> bytes:
        chain = await asyncio.get_running_loop().run_in_executor(self._thread, _with_reason, work)
        self._bridge.call(self._count, method, grpc.StatusCode.OK)
        self._bridge.call(self._instruments.certificates.issued.labels(how).inc)
        return pb.CertificateChain(certificates=chain).SerializeToString()

    async def _refuse(self, method: str, error: FleetPulseError, call: Call) -> bytes:
        status = status_of(error)
        _LOGGER.info("%s of %s is refused: %s", method, call.peer(), error)
        self._bridge.call(self._instruments.certificates.refused.labels(error.reason).inc)
        self._bridge.call(self._count, method, status)
        await call.abort(status, str(error))
        raise AssertionError  # abort does not return

    def _count(self, method: str, code: grpc.StatusCode) -> None:
        self._instruments.rpc.requests.labels(method, code.name).inc()


def _refused(action: str, worker_id: str, call: Call, error: FleetPulseError) -> AuditEntry:
    outcome = AuditOutcome.FAILED if isinstance(error, StoreUnavailable) else AuditOutcome.REFUSED
    # Only a certificate shows who asks; what a request says of itself is what it asks for.
    actor = worker_id if action == "renew" else ""
    return entry_of(action, actor, worker_id, call.peer(), outcome, status_of(error), told(error))


def _with_reason(work: Callable[[], list[bytes]]) -> list[bytes]:
    try:
        return work()
    except OSError as error:
        _LOGGER.error("the files of the CA cannot be used: %s", error)  # noqa: TRY400 - the message says all
        raise StoreUnavailable("the master cannot use the files of its CA now; its log says why") from error


def _parsed(kind: type[M], data: bytes) -> M:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise InvalidMessage(f"the message is not a {kind.__name__}") from error


def _address(peer: str) -> str:
    """Of a peer as grpc writes it, ``ipv4:192.0.2.7:4711`` or ``ipv6:[2001:db8::1]:4711``, what one machine has."""
    return unquote(peer).rpartition(":")[0]
