"""``Join`` and ``Renew``: certificates for workers. Handlers in grpc's loop; the CA works in a thread of its own."""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import grpc

from fleetpulse.master.addresses import host_of_peer
from fleetpulse.master.audit.entries import Record
from fleetpulse.master.errors import FleetPulseError, StoreUnavailable, TooManyAttempts, WorkerIdInUse
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.pki.admission import WorkerCertificate
from fleetpulse.master.pki.authority import Authority
from fleetpulse.master.pki.certificates import request_from, worker_certificate_from
from fleetpulse.master.rpc.status import audit_entry, refusal_entry, status_of
from fleetpulse.master.rpc.stream import HubBridge, RpcCall, decode
from fleetpulse.proto import fleetpulse_pb2 as pb

_LOGGER = logging.getLogger(__name__)

MAX_REFUSALS = 10
"""Within a minute, of one host with unknown tokens, or with one token; further such attempts are refused at once."""

_T = TypeVar("_T")

_MINUTE_SECONDS = 60.0
_MAX_HOSTS = 1024


def peer_certificate(call: RpcCall) -> WorkerCertificate | None:
    """Returns the certificate that grpc has verified; ``None`` without TLS, or for one that is not a worker's."""
    shown = call.auth_context().get("x509_pem_cert")
    return worker_certificate_from(next(iter(shown))) if shown else None


class AttemptLimiter:
    """Refused attempts of the last minute by a key. Bounded: the key that was refused longest ago is dropped first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._refusals: OrderedDict[str, list[float]] = OrderedDict()

    def check(self, key: str) -> None:
        """Raises ``TooManyAttempts`` if whoever has this key has to wait."""
        since = self._clock() - _MINUTE_SECONDS
        recent = [at for at in self._refusals.get(key, ()) if at > since]
        if len(recent) >= MAX_REFUSALS:
            raise TooManyAttempts("too many attempts were refused; wait a minute")

    def add_refusal(self, key: str) -> None:
        """Counts a refused attempt."""
        self._refusals[key] = [*self._refusals.pop(key, ()), self._clock()][-MAX_REFUSALS:]
        while len(self._refusals) > _MAX_HOSTS:
            self._refusals.popitem(last=False)


class Enrollment:
    """Built on the hub; all else runs in grpc's loop."""

    def __init__(
        self, authority: Authority, instruments: Instruments, bridge: HubBridge, limiter: AttemptLimiter, record: Record
    ) -> None:
        self._authority = authority
        self._record = record
        self._instruments = instruments
        self._bridge = bridge
        self._limiter = limiter
        # One thread: requests wait for one lock, and grpc's loop must not wait with them.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ca")

    def close(self) -> None:
        """Starts no more work."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def join(self, data: bytes, call: RpcCall) -> bytes:
        """Issues the first certificate of a machine with a token."""
        key = host_of_peer(call.peer())
        worker_id = ""

        def work() -> list[bytes]:
            nonlocal worker_id
            worker_id = request_from(request.csr).worker_id
            return self._authority.join(request.token, request.csr)

        try:
            request = decode(pb.JoinRequest, data)
            if await self._in_thread(lambda: self._authority.knows(request.token)):
                # A machine behind the same address that guesses, or has a wrong token, does not keep this one out.
                key += f" {hashlib.sha256(request.token.encode()).hexdigest()}"
            self._limiter.check(key)
            chain = await self._answer("Join", "join", work)
        except FleetPulseError as error:
            # Whoever asks for an id in use has a valid token, and guesses none.
            if not isinstance(error, TooManyAttempts | StoreUnavailable | WorkerIdInUse):
                self._limiter.add_refusal(key)
            # The actor is unknown: the id in a request is only what it asks for.
            self._bridge.call(self._record, refusal_entry("join", "", worker_id, call.peer(), error))
            return await self._refuse("Join", error, call)
        self._bridge.call(self._record, audit_entry("join", worker_id, worker_id, call.peer()))
        return chain

    async def renew(self, data: bytes, call: RpcCall) -> bytes:
        """Issues the next certificate of a worker."""
        holder = peer_certificate(call)
        worker_id = "" if holder is None else holder.worker_id

        def work() -> list[bytes]:
            return self._authority.renew(holder, decode(pb.RenewRequest, data).csr)

        try:
            chain = await self._answer("Renew", "renew", work)
        except FleetPulseError as error:
            self._bridge.call(self._record, refusal_entry("renew", worker_id, worker_id, call.peer(), error))
            return await self._refuse("Renew", error, call)
        self._bridge.call(self._record, audit_entry("renew", worker_id, worker_id, call.peer()))
        return chain

    async def _answer(self, method: str, how: str, work: Callable[[], list[bytes]]) -> bytes:
        chain = await self._in_thread(work)
        self._bridge.call(self._count, method, grpc.StatusCode.OK)
        self._bridge.call(self._instruments.certificates.issued.labels(how).inc)
        return pb.CertificateChain(certificates=chain).SerializeToString()

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, _map_errors, work)

    async def _refuse(self, method: str, error: FleetPulseError, call: RpcCall) -> bytes:
        status = status_of(error)
        _LOGGER.info("%s of %s is refused: %s", method, call.peer(), error)
        self._bridge.call(self._instruments.certificates.refused.labels(error.reason).inc)
        self._bridge.call(self._count, method, status)
        await call.abort(status, str(error))
        raise AssertionError  # abort does not return

    def _count(self, method: str, code: grpc.StatusCode) -> None:
        self._instruments.rpc.requests.labels(method, code.name).inc()


def _map_errors(work: Callable[[], _T]) -> _T:
    try:
        return work()
    except OSError as error:
        _LOGGER.error("the files of the CA cannot be used: %s", error)  # noqa: TRY400 - the message says all
        raise StoreUnavailable("the master cannot use the files of its CA now; its log says why") from error
