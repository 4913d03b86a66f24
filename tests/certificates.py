"""Certificates for tests, by the code that makes and keeps them: a CA in a folder, and workers that joined it."""

import time
from pathlib import Path

import grpc
from cryptography import x509

from fleetpulse.master.pki.authority import DEFAULT_LIFETIME_SECONDS, Authority, create
from fleetpulse.worker.credentials.bundle import Bundle, bundle_from, new_key, signing_request


def new_authority(data_dir: Path) -> Authority:
    """A CA in a data directory that has none."""
    create(data_dir)
    return Authority(data_dir)


def joined(data_dir: Path, worker_id: str, lifetime: float = DEFAULT_LIFETIME_SECONDS, age: float = 0.0) -> Bundle:
    """What a worker got ``age`` seconds ago, for ``lifetime`` seconds."""
    authority = Authority(data_dir, lifetime, lambda: time.time() - age)
    key = new_key()
    chain = authority.join(authority.new_join_token(60.0, worker_id), signing_request(key, worker_id))
    return bundle_from(key, chain, x509.load_der_x509_certificate(chain[1]))


def shown(bundle: Bundle, ca: Bundle | None = None) -> grpc.ChannelCredentials:
    """Credentials of a channel that shows this certificate, to a master that ``ca`` knows."""
    return grpc.ssl_channel_credentials((ca or bundle).ca_pem, bundle.key_pem, bundle.certificate_pem)
