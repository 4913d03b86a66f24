"""The CA of a fleet: which certificates let a client act as which worker. Files and cryptography; no gRPC.

Only ``Admission`` and ``workers_need_certificates`` may run on the hub or on grpc's loop.
"""

from pathlib import Path

CERTIFICATE_NAME = "certificate.pem"


def ca_folder(data_dir: Path) -> Path:
    """Returns where the CA of a master with this data directory is, or would be."""
    return data_dir / "ca"


def workers_need_certificates(data_dir: Path) -> bool:
    """Returns whether the data directory has a CA (``fleetpulse ca init``), so that workers must use TLS."""
    return (ca_folder(data_dir) / CERTIFICATE_NAME).exists()
