"""A key, its certificate and the CA's in one file, so that they always fit together."""

import re
import time
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fleetpulse.proto.join import worker_id_of, worker_uri
from fleetpulse.proto.private_files import make_private_folder, write_private
from fleetpulse.worker.credentials import CredentialsError

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)
_COMMON_NAME_LENGTH = 64


class Bundle(NamedTuple):
    """A worker's key and certificate, and the CA of its master. ``repr`` does not show the key."""

    key_pem: bytes
    certificate_pem: bytes
    ca_pem: bytes
    worker_id: str
    not_before: float
    not_after: float
    """Unix seconds."""

    def __repr__(self) -> str:
        return f"Bundle({self.worker_id})"

    @property
    def ca_fingerprint(self) -> bytes:
        """SHA-256 of the CA's certificate in DER."""
        return x509.load_pem_x509_certificate(self.ca_pem).fingerprint(hashes.SHA256())

    def private_key(self) -> ec.EllipticCurvePrivateKey:
        """The key of the certificate."""
        key = serialization.load_pem_private_key(self.key_pem, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)  # nosec B101 # for the type checker
        return key

    def has_expired(self, now: float) -> bool:
        """``now`` is in Unix seconds."""
        return self.not_after <= now

    def expiry(self) -> str:
        """``not_after`` as text, in UTC."""
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.not_after))


def new_key() -> ec.EllipticCurvePrivateKey:
    """On P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def signing_request(key: ec.EllipticCurvePrivateKey, worker_id: str) -> bytes:
    """A certificate signing request in DER, with the worker's id as its URI."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, worker_id[:_COMMON_NAME_LENGTH])])
    alternatives = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(worker_uri(worker_id))])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name).add_extension(alternatives, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def bundle_from(key: ec.EllipticCurvePrivateKey, chain: list[bytes], ca: x509.Certificate) -> Bundle:
    """Checks the master's answer, in DER, against the key and the CA. Raises ``CredentialsError``."""
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        certificate = x509.load_der_x509_certificate(chain[0])
        certificate.verify_directly_issued_by(ca)
        return _bundle(key_pem, certificate, ca)
    except (IndexError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound) as error:
        raise CredentialsError("the master's answer is no certificate of its CA") from error


def read_bundle(path: Path) -> Bundle | None:
    """``None`` where there is no file. Raises ``CredentialsError``."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise CredentialsError(f"the certificate in {path} cannot be read: {error.strerror}") from error
    try:
        key_pem = data[: data.index(b"-----BEGIN CERTIFICATE")]
        certificate, ca = map(x509.load_pem_x509_certificate, _CERTIFICATE.findall(data))
        return _bundle(key_pem, certificate, ca)
    except (ValueError, TypeError, x509.ExtensionNotFound) as error:
        raise CredentialsError(f"{path} is damaged; remove it and join again") from error


def write_bundle(path: Path, bundle: Bundle) -> None:
    """Raises ``CredentialsError``."""
    try:
        make_private_folder(path.parent)
        write_private(path, bundle.key_pem + bundle.certificate_pem + bundle.ca_pem)
    except OSError as error:
        raise CredentialsError(f"the certificate cannot be kept in {path}: {error.strerror or error}") from error


def _bundle(key_pem: bytes, certificate: x509.Certificate, ca: x509.Certificate) -> Bundle:
    key = serialization.load_pem_private_key(key_pem, None)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    worker_id = worker_id_of(uris[0]) if uris else None
    if worker_id is None or key.public_key() != certificate.public_key():
        raise ValueError("the certificate is not for this worker's key")
    return Bundle(
        key_pem,
        certificate.public_bytes(serialization.Encoding.PEM),
        ca.public_bytes(serialization.Encoding.PEM),
        worker_id,
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )
