"""Certificates for machines that are not there: each joins by itself, as a real one does."""

import random
import time
from collections.abc import Iterable
from pathlib import Path

from fleetpulse.proto.join import JoinToken
from fleetpulse.worker.credentials import JoinEndpoint
from fleetpulse.worker.credentials.renewer import CertificateRenewer, load_or_join


def join_all(
    worker_ids: Iterable[str], folder: Path, token: JoinToken | None, door: JoinEndpoint
) -> dict[str, CertificateRenewer]:
    """Of every machine, kept in a folder each below ``folder``; none without a token and without what was kept.

    The token must be for as many uses as there are machines. Raises ``CredentialsError``.
    """
    keepers = {}
    for worker_id in worker_ids:
        own = folder / worker_id
        bundle = load_or_join(worker_id, own, token, door, time.time(), time.sleep)
        if bundle is not None:
            keepers[worker_id] = CertificateRenewer(own, bundle, random.Random(worker_id))  # nosec B311 # the same
    return keepers
