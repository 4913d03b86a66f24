"""Certificates for tests, issued by FleetPulse's own code: a CA in a folder and its workers."""

import time
from pathlib import Path

import grpc
from cryptography import x509

from fleetpulse.master.pki.authority import DEFAULT_LIFETIME_SECONDS, Authority, create
from fleetpulse.worker.credentials.bundle import Bundle, bundle_from, new_key, signing_request


def new_authority(data_dir: Path) -> Authority:
    """Creates a CA in a data directory without one."""
    create(data_dir)
    return Authority(data_dir)


def issued_bundle(
    data_dir: Path, worker_id: str, lifetime: float = DEFAULT_LIFETIME_SECONDS, age: float = 0.0
) -> Bundle:
    """A worker's certificate and key, issued ``age`` seconds ago for ``lifetime`` seconds."""
    authority = Authority(data_dir, lifetime, lambda: time.time() - age)
    key = new_key()
    chain = authority.join(authority.new_join_token(60.0, worker_id), signing_request(key, worker_id))
    return bundle_from(key, chain, x509.load_der_x509_certificate(chain[1]))


def channel_credentials(bundle: Bundle, ca: Bundle | None = None) -> grpc.ChannelCredentials:
    """Channel credentials with this client certificate, which trust the CA of ``ca``, or else of ``bundle``."""
    return grpc.ssl_channel_credentials((ca or bundle).ca_pem, bundle.key_pem, bundle.certificate_pem)
