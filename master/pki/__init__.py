"""The CA of a fleet: who may speak as which worker. Files and cryptography; no gRPC.

Nothing here may run on the hub or on grpc's loop but ``Admission`` and ``workers_need_certificates``.
"""

from pathlib import Path

from fleetpulse.master.pki.files import CERTIFICATE_NAME, ca_folder


def workers_need_certificates(data_dir: Path) -> bool:
    """Whether a master with this data directory speaks TLS to its workers: whether ``fleetpulse ca init`` was run."""
    return (ca_folder(data_dir) / CERTIFICATE_NAME).exists()
