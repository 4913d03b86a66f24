"""Join: from a token to a certificate, without trusting anything but the fingerprint in the token."""

import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import closing
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto import fleetpulse_pb2_grpc as pb_grpc
from fleetpulse.proto.join import JoinToken
from fleetpulse.worker.credentials import CredentialsError, JoinEndpoint
from fleetpulse.worker.credentials.bundle import Bundle, bundle_from, new_key, signing_request

_LOGGER = logging.getLogger(__name__)

_ANSWER_SECONDS = 15.0
_REFUSALS = (
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
)
"""What time does not mend."""

_WAIT_SECONDS = 2.0


class MasterUnreachable(CredentialsError):
    """Nobody answers there now; it may work later."""


def join(door: JoinEndpoint, token: JoinToken, worker_id: str, key: ec.EllipticCurvePrivateKey | None = None) -> Bundle:
    """A certificate for this worker. Blocks for some seconds. Raises ``CredentialsError``.

    With the same key it may be asked again, when an answer was lost.
    """
    key = key or new_key()
    ca = trusted_ca(door, token.fingerprint)
    credentials = grpc.ssl_channel_credentials(ca.public_bytes(serialization.Encoding.PEM))
    with closing(grpc.secure_channel(str(door), credentials, (("grpc.enable_retries", 0),))) as channel:
        request = pb.JoinRequest(token=token.text(), csr=signing_request(key, worker_id))
        try:
            chain = pb_grpc.EnrollmentStub(channel).Join(request, timeout=_ANSWER_SECONDS)
        except grpc.RpcError as error:
            raise _told(door, error) from error
    return bundle_from(key, list(chain.certificates), ca)


def join_when_possible(door: JoinEndpoint, token: JoinToken, worker_id: str, sleep: Callable[[float], None]) -> Bundle:
    """The same, tried until somebody answers. Raises ``CredentialsError`` for everything that time does not mend."""
    key, said = new_key(), ""
    while True:
        try:
            return join(door, token, worker_id, key)
        except MasterUnreachable as error:
            if said != str(error):
                _LOGGER.warning("worker %s: %s; it will be tried until it works", worker_id, error)
            said = str(error)
            sleep(_WAIT_SECONDS)


def trusted_ca(door: JoinEndpoint, fingerprint: bytes) -> x509.Certificate:
    """The CA's certificate, out of a TLS handshake that proves nothing else. Raises ``CredentialsError``."""
    chain = [x509.load_der_x509_certificate(der) for der in _shown_chain(door)]
    ca = next((one for one in chain if one.fingerprint(hashes.SHA256()) == fingerprint), None)
    if ca is None:
        raise CredentialsError(
            f"the master at {door} is not the one that the join token is from: its CA has another fingerprint"
        )
    names = _names(chain[0])
    if not _is_named(door.host, names):
        raise CredentialsError(
            f"the master's certificate is for {', '.join(names)}, not for {door.host}: "
            f"reach it by one of these, or start it with --tls-name {door.host}"
        )
    return ca


def _shown_chain(door: JoinEndpoint) -> list[bytes]:
    """The certificates that a server shows, in DER, unverified: the caller knows one of them by its fingerprint."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection(door, timeout=_ANSWER_SECONDS) as connection,
            context.wrap_socket(connection, server_hostname=door.host) as secured,
        ):
            return _unverified_chain(secured)
    except ssl.SSLError as error:
        raise CredentialsError(
            f"what listens at {door} does not speak TLS: is it the join port of a master?"
        ) from error
    except OSError as error:
        raise MasterUnreachable(f"no join port answers at {door}: {error.strerror or error}") from error


def _unverified_chain(secured: ssl.SSLSocket) -> list[bytes]:
    # Public since Python 3.13, and there in its private half since 3.10.
    public: Any = getattr(secured, "get_unverified_chain", None)
    if public is not None:
        return list(public())
    private: Any = secured._sslobj  # type: ignore[attr-defined]  # noqa: SLF001 - see above
    return [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in private.get_unverified_chain()]


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def _is_named(host: str, names: list[str]) -> bool:
    """As grpc will look at it, so that people are told why it refuses."""
    try:
        return str(ipaddress.ip_address(host)) in names
    except ValueError:
        wanted = host.lower().rstrip(".")
        parent = "*." + wanted.partition(".")[2]
        return any(name.lower() in (wanted, parent) for name in names)


def _told(door: JoinEndpoint, error: grpc.RpcError) -> CredentialsError:
    code, details = error.code(), error.details()
    if code in _REFUSALS:
        return CredentialsError(f"the master at {door} refuses to let this worker join: {details}")
    return MasterUnreachable(f"the master at {door} gave no certificate ({code.name}: {details})")
