"""TLS of the gRPC ports: the master's own certificate, and who is let go because theirs is good for nothing more."""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import gevent
import grpc

from fleetpulse.master.errors import FleetPulseError
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.pki import certificates
from fleetpulse.master.pki.admission import life_used_ratio
from fleetpulse.master.pki.authority import Authority

_LOGGER = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
_RENEW_AT = 2 / 3
"""Of its life the master's certificate is replaced."""


class ServerCertificate:
    """What the master shows. A new one is taken up with the next handshake."""

    def __init__(self, authority: Authority, names: Sequence[str], clock: Callable[[], float]) -> None:
        """Makes the first one."""
        self._authority = authority
        self._names = names
        self._clock = clock
        self._renew_at = 0.0
        self._lock = threading.Lock()
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
        with self._lock:
            # With the CA's, which a worker that has nothing but a fingerprint looks for.
            chain = certificates.pem(pair.certificate) + self._authority.certificate_pem
            self._pair = certificates.key_pem(pair.key), chain
            self._begins_at, self.expires_at = now, expires_at
            self._renew_at = now + (expires_at - now) * _RENEW_AT

    def life_used_ratio(self) -> float:
        """The share of its life that is over, 0 to 1."""
        return life_used_ratio(self._begins_at, self.expires_at, self._clock())

    def credentials(self, *, for_workers: bool) -> grpc.ServerCredentials:
        """For a port; ``for_workers``: only who shows a certificate of the CA is let in."""
        root = self._authority.certificate_pem if for_workers else None
        shown = self._pair

        def configuration() -> grpc.ServerCertificateConfiguration:
            return grpc.ssl_server_certificate_configuration([self._pair], root)

        def newer() -> Any:  # its stub forgets None, for no change
            # Called by grpc with every handshake.
            nonlocal shown
            if shown is self._pair:
                return None
            shown = self._pair
            return configuration()

        return grpc.dynamic_ssl_server_credentials(configuration(), newer, for_workers)


class Watch:
    """Looks every second whether somebody was revoked or has expired. Belongs to the hub; reads in a native thread."""

    def __init__(
        self,
        authority: Authority,
        shown: ServerCertificate,
        instruments: Instruments,
        end_refused: Callable[[], None],
    ) -> None:
        self._authority = authority
        self._shown = shown
        self._end_refused = end_refused
        self._greenlet: gevent.Greenlet[[], None] | None = None
        instruments.certificates.expiry.labels("master").set_function(lambda: shown.expires_at)
        instruments.certificates.life_used.labels("master").set_function(shown.life_used_ratio)

    def start(self) -> None:
        self._greenlet = gevent.spawn(self._run)
        self._greenlet.name = "certificates"

    def stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill()

    def _run(self) -> None:
        said = ""
        while True:
            gevent.sleep(CHECK_SECONDS)
            try:
                gevent.get_hub().threadpool.apply(self._look)
                said = ""
            except (OSError, FleetPulseError) as error:
                # What was known stays in force.
                if said != str(error):
                    _LOGGER.error("the files of the CA cannot be read: %s", error)  # noqa: TRY400 - it says all
                said = str(error)
            try:
                self._end_refused()
            except Exception:
                _LOGGER.exception("certificates could not be checked")

    def _look(self) -> None:
        self._shown.renew_if_due()
        self._authority.refresh()
