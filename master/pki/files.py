"""The files of the CA, in a folder of their own in the data directory."""

from pathlib import Path

KEY_NAME = "key.pem"
CERTIFICATE_NAME = "certificate.pem"
STATE_NAME = "state.json"
LOCK_NAME = "lock"


def ca_folder(data_dir: Path) -> Path:
    """Where the CA of a master with this data directory is, or would be."""
    return data_dir / "ca"
