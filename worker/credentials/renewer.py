"""Gets the worker's certificate and keeps it valid: joins a master with a token, renews at two thirds of its life.

Joining trusts nothing but the fingerprint of the CA in the token.
"""

import asyncio
import contextlib
import hashlib
import ipaddress
import logging
import random
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto import fleetpulse_pb2_grpc as pb_grpc
from fleetpulse.proto.join import JoinToken
from fleetpulse.proto.private_files import write_private
from fleetpulse.worker.credentials import BUNDLE_NAME, CredentialsError, JoinEndpoint
from fleetpulse.worker.credentials.bundle import (
    Bundle,
    bundle_from,
    new_key,
    read_bundle,
    signing_request,
    write_bundle,
)

_LOGGER = logging.getLogger(__name__)

_USED_TOKEN_NAME = "tls.joined"  # nosec B105 # a file name
"""A file with the digest of the token that was last used to join."""

_RENEW_AT_RATIO = 2 / 3
_JITTER_RATIO = 0.05
_RETRY_RATIO = 0.02
"""Of the certificate's life: when to renew it, by how much at random to renew it earlier, and between two tries."""

_RPC_TIMEOUT_SECONDS = 15.0
_CHANNEL_OPTIONS = (("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0))
_JOIN_RETRY_SECONDS = 2.0

_PERMANENT_CODES = (
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
)

Renew = Callable[..., Awaitable[pb.CertificateChain]]
"""The RPC: ``FleetStub(channel).Renew``."""


class JoinDenied(CredentialsError):
    """The master answered, and gives no certificate for this token, id and key."""


class MasterUnreachable(CredentialsError):
    """No master answers now; a later try may succeed."""


class CertificateRenewer:
    """Holds the bundle in a file and in memory. All methods but ``__init__`` belong to one asyncio loop."""

    def __init__(
        self, folder: Path, bundle: Bundle, rng: random.Random | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = folder / BUNDLE_NAME
        self._bundle = bundle
        self._rng = rng or random.Random()  # nosec B311 # spreads renewals in time
        self._clock = clock
        self._credentials: tuple[Bundle, grpc.ChannelCredentials] | None = None

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For a new connection. The same object until there is a newer certificate."""
        bundle = self._bundle
        if self._credentials is None or self._credentials[0] is not bundle:
            credentials = grpc.ssl_channel_credentials(bundle.ca_pem, bundle.key_pem, bundle.certificate_pem)
            self._credentials = bundle, credentials
        return self._credentials[1]

    def health_error(self) -> str | None:
        """Why every master will refuse this certificate, as far as the worker can know."""
        if self._bundle.has_expired(self._clock()):
            return f"this worker's certificate expired on {self._bundle.expiry()}: it must join again"
        return None

    async def renew_when_due(self, renew: Renew) -> None:
        """Returns when there is a newer certificate, which needs a new connection."""
        bundle = self._bundle
        life = bundle.not_after - bundle.not_before
        # The jitter keeps a fleet that joined at once from renewing at once.
        due = bundle.not_before + life * (_RENEW_AT_RATIO - _JITTER_RATIO * self._rng.random())
        await self._sleep_until(due)
        while True:
            try:
                await self._renew(renew)
            except (grpc.aio.AioRpcError, CredentialsError) as error:
                reason = (error.details() or error.code().name) if isinstance(error, grpc.aio.AioRpcError) else error
                _LOGGER.warning("worker %s: its certificate is not renewed yet: %s", bundle.worker_id, reason)
                await self._sleep_until(self._clock() + max(life * _RETRY_RATIO, 1.0))
            else:
                _LOGGER.info("worker %s: has a new certificate, until %s", bundle.worker_id, self._bundle.expiry())
                return

    async def _renew(self, renew: Renew) -> None:
        key = await asyncio.to_thread(new_key)
        csr = await asyncio.to_thread(signing_request, key, self._bundle.worker_id)
        answer = await renew(pb.RenewRequest(csr=csr), timeout=_RPC_TIMEOUT_SECONDS)

        def store() -> None:
            ca = x509.load_pem_x509_certificate(self._bundle.ca_pem)
            bundle = bundle_from(key, list(answer.certificates), ca)
            write_bundle(self._path, bundle)
            self._bundle = bundle

        await asyncio.to_thread(store)

    async def _sleep_until(self, due: float) -> None:
        # In pieces, because the wall clock may be set.
        while (left := due - self._clock()) > 0.0:  # noqa: ASYNC110 - it waits for a clock
            await asyncio.sleep(min(left, 60.0))


def load_or_join(
    worker_id: str,
    folder: Path,
    token: JoinToken | None,
    endpoint: JoinEndpoint | None,
    now: float,
    sleep: Callable[[float], None],
) -> Bundle | None:
    """The worker's bundle: the stored one, or a new one for a token that was not used yet. ``None``: no TLS.

    Blocks until a master answers, if it has to join. Raises ``CredentialsError``.
    """
    path = folder / BUNDLE_NAME
    if token is None or endpoint is None:
        bundle = read_bundle(path)
        if bundle is not None and (reason := _why_unusable(bundle, worker_id, now)) is not None:
            raise CredentialsError(f"{reason}; join again with a new token, or remove {path}")
        return bundle
    try:
        stored = read_bundle(path)
    except CredentialsError as error:
        _LOGGER.warning("%s", error)
        stored = None
    is_usable = (
        stored is not None
        and _why_unusable(stored, worker_id, now) is None
        and stored.ca_fingerprint == token.fingerprint
    )
    used_token, digest = folder / _USED_TOKEN_NAME, hashlib.sha256(token.secret).hexdigest().encode() + b"\n"
    with contextlib.suppress(OSError):
        if is_usable and used_token.read_bytes() == digest:
            return stored
    try:
        try:
            bundle = _join_with_retries(endpoint, token, worker_id, new_key(), sleep)
        except JoinDenied:
            if stored is None or not is_usable:
                raise
            # A token for several ids gives one that is in use only to the key that the master knows of it.
            bundle = _join_with_retries(endpoint, token, worker_id, stored.private_key(), sleep)
    except CredentialsError as error:
        if not is_usable:
            raise
        _LOGGER.warning("worker %s: %s; it goes on with the certificate that it has", worker_id, error)
        return stored
    write_bundle(path, bundle)
    try:
        write_private(used_token, digest)
    except OSError as error:
        _LOGGER.warning("the used join token is not recorded: %s", error.strerror or error)
    _LOGGER.info("worker %s: has joined at %s, with a certificate until %s", worker_id, endpoint, bundle.expiry())
    return bundle


def _why_unusable(bundle: Bundle, worker_id: str, now: float) -> str | None:
    if bundle.worker_id != worker_id:
        return f"the certificate of this worker is for the worker id {bundle.worker_id}, not for {worker_id}"
    if bundle.has_expired(now):
        return f"the certificate of this worker expired on {bundle.expiry()}"
    return None


def _join_with_retries(
    endpoint: JoinEndpoint,
    token: JoinToken,
    worker_id: str,
    key: ec.EllipticCurvePrivateKey,
    sleep: Callable[[float], None],
) -> Bundle:
    """Joins, and tries again while no master answers. Raises ``CredentialsError`` for a permanent error."""
    # One key for all tries: the master answers it again when an answer was lost.
    logged = ""
    while True:
        try:
            return _join(endpoint, token, worker_id, key)
        except MasterUnreachable as error:
            if logged != str(error):
                _LOGGER.warning("worker %s: %s; it will be tried until it works", worker_id, error)
            logged = str(error)
            sleep(_JOIN_RETRY_SECONDS)


def _join(endpoint: JoinEndpoint, token: JoinToken, worker_id: str, key: ec.EllipticCurvePrivateKey) -> Bundle:
    ca = _trusted_ca(endpoint, token.fingerprint)
    credentials = grpc.ssl_channel_credentials(ca.public_bytes(serialization.Encoding.PEM))
    with closing(grpc.secure_channel(str(endpoint), credentials, _CHANNEL_OPTIONS)) as channel:
        request = pb.JoinRequest(token=token.text(), csr=signing_request(key, worker_id))
        try:
            chain = pb_grpc.EnrollmentStub(channel).Join(request, timeout=_RPC_TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            code, details = error.code(), error.details()
            if code in _PERMANENT_CODES:
                raise JoinDenied(f"the master at {endpoint} refuses to let this worker join: {details}") from error
            raise MasterUnreachable(f"the master at {endpoint} gave no certificate ({code.name}: {details})") from error
    return bundle_from(key, list(chain.certificates), ca)


def _trusted_ca(endpoint: JoinEndpoint, fingerprint: bytes) -> x509.Certificate:
    """The CA's certificate, found by its fingerprint in an unverified TLS handshake. Raises ``CredentialsError``."""
    chain = [x509.load_der_x509_certificate(der) for der in _presented_chain(endpoint)]
    ca = next((one for one in chain if one.fingerprint(hashes.SHA256()) == fingerprint), None)
    if ca is None:
        raise CredentialsError(
            f"the master at {endpoint} is not the one that the join token is from: its CA has another fingerprint"
        )
    names = _names(chain[0])
    if not _matches(endpoint.host, names):
        raise CredentialsError(
            f"the master's certificate is for {', '.join(names)}, not for {endpoint.host}: "
            f"reach it by one of these, or start it with --tls-name {endpoint.host}"
        )
    return ca


def _presented_chain(endpoint: JoinEndpoint) -> list[bytes]:
    """The server's certificates in DER, unverified: the caller knows one of them by its fingerprint."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection(endpoint, timeout=_RPC_TIMEOUT_SECONDS) as connection,
            context.wrap_socket(connection, server_hostname=endpoint.host) as secured,
        ):
            # Public since Python 3.13, and private since 3.10.
            public: Any = getattr(secured, "get_unverified_chain", None)
            if public is not None:
                return list(public())
            private: Any = secured._sslobj  # type: ignore[attr-defined]  # noqa: SLF001 - see above
            return [
                ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in private.get_unverified_chain()
            ]
    except ssl.SSLError as error:
        raise CredentialsError(
            f"what listens at {endpoint} does not speak TLS: is it the join port of a master?"
        ) from error
    except OSError as error:
        raise MasterUnreachable(f"no join port answers at {endpoint}: {error.strerror or error}") from error


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def _matches(host: str, names: list[str]) -> bool:
    """The rule that grpc applies, checked first for a clear message."""
    try:
        return str(ipaddress.ip_address(host)) in names
    except ValueError:
        wanted = host.lower().rstrip(".")
        parent = "*." + wanted.partition(".")[2]
        return any(name.lower() in (wanted, parent) for name in names)
