"""TLS of the gRPC ports of a master with a CA: its own certificate, the join port, and checks for revocation.

Imported only where there is a CA, because cryptography is slow to load.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import gevent
import grpc

from fleetpulse.master.audit.entries import Record
from fleetpulse.master.config import TlsConfig
from fleetpulse.master.errors import FleetPulseError
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.pki import certificates
from fleetpulse.master.pki.admission import WorkerCertificate, life_used_ratio
from fleetpulse.master.pki.authority import Authority
from fleetpulse.master.rpc.enrollment import AttemptLimiter, Enrollment, peer_certificate
from fleetpulse.master.rpc.stream import HubBridge, RpcCall
from fleetpulse.proto import fleetpulse_pb2 as pb

_LOGGER = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
_RENEW_AT = 2 / 3
"""Of its life, when the master's certificate is replaced."""

_ENROLLMENT_NAME = pb.DESCRIPTOR.services_by_name["Enrollment"].full_name
_JOIN_OPTIONS = (
    ("grpc.max_receive_message_length", 16 * 1024),
    ("grpc.so_reuseport", 0),
    # A client needs the connection for one call.
    ("grpc.max_connection_age_ms", 30_000),
    ("grpc.max_connection_age_grace_ms", 5_000),
)
_MAX_CONCURRENT_JOINS = 64

Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"


class ServerCertificate:
    """The master's certificate. A new one is used from the next handshake on."""

    def __init__(self, authority: Authority, names: Sequence[str], clock: Callable[[], float]) -> None:
        """Makes the first certificate."""
        self._authority, self._names, self._clock = authority, names, clock
        self._renew_at = 0.0
        self.expires_at = 0.0
        """Unix seconds."""

        self._begins_at = 0.0
        self._pair: tuple[bytes, bytes] = b"", b""
        self.renew_if_due()

    def renew_if_due(self) -> None:
        """Makes a key, so not for the hub or grpc's loop."""
        now = self._clock()
        if now < self._renew_at:
            return
        pair = self._authority.server_pair(self._names)
        expires_at = pair.certificate.not_valid_after_utc.timestamp()
        # With the CA's certificate, which a worker that only has its fingerprint looks for.
        chain = certificates.pem(pair.certificate) + self._authority.certificate_pem
        self._pair = certificates.key_pem(pair.key), chain
        self._begins_at, self.expires_at = now, expires_at
        self._renew_at = now + (expires_at - now) * _RENEW_AT

    def life_used_ratio(self) -> float:
        """Returns the share of its life that is over, 0 to 1."""
        return life_used_ratio(self._begins_at, self.expires_at, self._clock())

    def credentials(self, *, for_workers: bool) -> grpc.ServerCredentials:
        """Returns the credentials of a port; ``for_workers``: clients need a certificate of the CA."""
        root = self._authority.certificate_pem if for_workers else None
        shown = self._pair

        def configuration() -> grpc.ServerCertificateConfiguration:
            return grpc.ssl_server_certificate_configuration([self._pair], root)

        def fetch() -> Any:  # its stub forgets None, for no change
            # Called by grpc with every handshake.
            nonlocal shown
            if shown is self._pair:
                return None
            shown = self._pair
            return configuration()

        return grpc.dynamic_ssl_server_credentials(configuration(), fetch, for_workers)


class TlsPorts:
    """Owned by ``RpcServer``. Made, started and stopped on the hub; reads files in a native thread."""

    def __init__(
        self,
        authority: Authority,
        config: TlsConfig,
        instruments: Instruments,
        bridge: HubBridge,
        end_refused: Callable[[], None],
        record: Record,
    ) -> None:
        """``end_refused`` ends the sessions whose certificate was revoked or has expired; called every second."""
        self.admission = authority.admission
        self.join_address = config.join
        self._authority = authority
        self._certificate = certificate = ServerCertificate(authority, config.names, time.time)
        self._enrollment = Enrollment(authority, instruments, bridge, AttemptLimiter(time.monotonic), record)
        self._end_refused = end_refused
        self._greenlet: gevent.Greenlet[[], None] | None = None
        instruments.certificates.expiry.labels("master").set_function(lambda: certificate.expires_at)
        instruments.certificates.life_used.labels("master").set_function(certificate.life_used_ratio)

    def start(self) -> None:
        """Begins to check for revoked and expired certificates."""
        self._greenlet = gevent.spawn(self._run)
        self._greenlet.name = "certificates"

    def stop(self) -> None:
        """Starts no more work."""
        if self._greenlet is not None:
            self._greenlet.kill()
        self._enrollment.close()

    def credentials(self, *, for_workers: bool) -> grpc.ServerCredentials:
        """Returns the credentials of the port for workers, or of the join port."""
        return self._certificate.credentials(for_workers=for_workers)

    @staticmethod
    def certificate_of(call: RpcCall) -> WorkerCertificate | None:
        """Returns the verified certificate of the other end; ``None`` for one that is not a worker's."""
        return peer_certificate(call)

    def renew_handler(self) -> Handler:
        """Returns the handler of ``Renew``."""
        return grpc.unary_unary_rpc_method_handler(self._enrollment.renew)

    def join_server(self) -> grpc.aio.Server:
        """Returns the server of the join port, which does not listen yet. In grpc's thread."""
        join: Handler = grpc.unary_unary_rpc_method_handler(self._enrollment.join)
        server = grpc.aio.server(options=_JOIN_OPTIONS, maximum_concurrent_rpcs=_MAX_CONCURRENT_JOINS)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_ENROLLMENT_NAME, {"Join": join}),))
        return server

    def _run(self) -> None:
        logged = ""
        while True:
            gevent.sleep(CHECK_SECONDS)
            try:
                gevent.get_hub().threadpool.apply(self._refresh)
                logged = ""
            except (OSError, FleetPulseError) as error:
                # The last known state stays in force.
                if logged != str(error):
                    _LOGGER.error("the files of the CA cannot be read: %s", error)  # noqa: TRY400 - it says all
                logged = str(error)
            try:
                self._end_refused()
            except Exception:
                _LOGGER.exception("certificates could not be checked")

    def _refresh(self) -> None:
        self._certificate.renew_if_due()
        self._authority.refresh()
