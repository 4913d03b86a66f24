"""X.509 as FleetPulse uses it: EC keys on P-256, one CA, certificates of masters and workers. Pure but for random keys.

Profiles after RFC 5280; a worker's certificate is for clients only and a master's for servers only, so that neither can
replace the other.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleetpulse.master.errors import InvalidMessage
from fleetpulse.master.pki.admission import WorkerCertificate
from fleetpulse.proto.join import MAX_CSR_BYTES, worker_id_of, worker_uri

CA_SECONDS = 10 * 365 * 86400.0

_CLOCK_SLACK_SECONDS = 300.0
_CLOCK_SLACK_RATIO = 0.1
"""Clocks differ, so a certificate is valid from a little before it was made: at most this part of its life."""

_COMMON_NAME_LENGTH = 64
"""The limit of X.520; the whole id of a worker is in the URI."""

_NO_KEY_USAGE = dict.fromkeys(
    (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    ),
    False,
)


class KeyPair(NamedTuple):
    """A private key and the certificate of its public key. ``repr`` does not show the key."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def __repr__(self) -> str:
        return f"KeyPair({self.certificate.subject.rfc4514_string()})"


class CertificateRequest(NamedTuple):
    """A checked certificate signing request."""

    worker_id: str
    key: ec.EllipticCurvePublicKey

    @property
    def key_fingerprint(self) -> str:
        """SHA-256 of the public key, in hexadecimal digits."""
        digest = hashes.Hash(hashes.SHA256())
        digest.update(
            self.key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        return digest.finalize().hex()


def new_ca(now: float) -> KeyPair:
    """Returns a self-signed CA that is valid for ten years."""
    key = ec.generate_private_key(ec.SECP256R1())
    # A unique name, so that two CAs differ by more than their keys.
    name = _name(f"FleetPulse CA {x509.random_serial_number():x}"[:24])
    extensions = (
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (x509.KeyUsage(**(_NO_KEY_USAGE | {"key_cert_sign": True, "crl_sign": True})), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
    )
    return KeyPair(key, _signed(name, name, key.public_key(), now, now + CA_SECONDS, extensions, key))


def server_pair(ca: KeyPair, names: Sequence[str], now: float, lifetime_seconds: float) -> KeyPair:
    """Returns a new key and certificate for a master with these host names and addresses."""
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives = [_general_name(name) for name in dict.fromkeys(names)]
    usage = ExtendedKeyUsageOID.SERVER_AUTH
    name = "FleetPulse master"
    return KeyPair(key, _leaf(ca, name, key.public_key(), alternatives, usage, now, lifetime_seconds))


def worker_certificate(
    ca: KeyPair, request: CertificateRequest, now: float, lifetime_seconds: float
) -> x509.Certificate:
    """Returns the requested certificate."""
    alternatives = [x509.UniformResourceIdentifier(worker_uri(request.worker_id))]
    name = request.worker_id[:_COMMON_NAME_LENGTH]
    return _leaf(ca, name, request.key, alternatives, ExtendedKeyUsageOID.CLIENT_AUTH, now, lifetime_seconds)


def request_from(der: bytes) -> CertificateRequest:
    """Parses and checks a certificate signing request. Raises ``InvalidMessage``."""
    if len(der) > MAX_CSR_BYTES:
        raise InvalidMessage(f"csr has {len(der)} bytes; at most {MAX_CSR_BYTES} are accepted")
    try:
        csr = x509.load_der_x509_csr(der)
        key, is_signed = csr.public_key(), csr.is_signature_valid
        worker_id = _worker_id(csr.extensions)
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise InvalidMessage("csr is no certificate signing request of a worker, in DER") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidMessage("csr is for a key that is not an EC key on P-256")
    if not is_signed or worker_id is None:
        raise InvalidMessage("csr must be signed and name fleetpulse://worker/ID as its one alternative name")
    return CertificateRequest(worker_id, key)


@lru_cache(maxsize=4096)
def worker_certificate_from(pem: bytes) -> WorkerCertificate | None:
    """Reads a certificate that grpc has verified; returns ``None`` if it is not a worker's."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        worker_id = _worker_id(certificate.extensions)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return None
    return None if worker_id is None else described(certificate, worker_id)


def described(certificate: x509.Certificate, worker_id: str) -> WorkerCertificate:
    """Reads a certificate whose worker id is known."""
    return WorkerCertificate(
        worker_id,
        f"{certificate.serial_number:x}",
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Returns PKCS #8, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def pem(certificate: x509.Certificate) -> bytes:
    """Returns the form that files contain."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def _leaf(
    ca: KeyPair,
    common_name: str,
    key: ec.EllipticCurvePublicKey,
    alternatives: Sequence[x509.GeneralName],
    usage: x509.ObjectIdentifier,
    now: float,
    lifetime_seconds: float,
) -> x509.Certificate:
    """Returns a certificate of a master or a worker. None outlives its CA."""
    ends = min(now + lifetime_seconds, ca.certificate.not_valid_after_utc.timestamp())
    extensions = (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.KeyUsage(**(_NO_KEY_USAGE | {"digital_signature": True})), True),
        (x509.SubjectAlternativeName(alternatives), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), False),
        (x509.ExtendedKeyUsage([usage]), False),
    )
    return _signed(_name(common_name), ca.certificate.subject, key, now, ends, extensions, ca.key)


def _signed(
    name: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: float,
    ends: float,
    extensions: Iterable[tuple[x509.ExtensionType, bool]],
    signer: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    """``extensions`` are given with whether they are critical."""
    slack = min(_CLOCK_SLACK_SECONDS, _CLOCK_SLACK_RATIO * (ends - now))
    builder = (
        x509.CertificateBuilder(issuer, name, key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(now - slack, UTC))
        .not_valid_after(datetime.fromtimestamp(ends, UTC))
    )
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, is_critical)
    return builder.sign(signer, hashes.SHA256())


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _worker_id(extensions: x509.Extensions) -> str | None:
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return worker_id_of(uris[0]) if len(uris) == 1 == len(list(names)) else None
