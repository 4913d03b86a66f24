"""The audit trail, for commands that change something past the master."""

from pathlib import Path

from fleetpulse.master.audit.files import record_command
from fleetpulse.master.console.screen import Screen


def tell_trail(screen: Screen, data_dir: Path, action: str, target: str, detail: str = "") -> None:
    """Record what was done. It is done, so a trail that cannot be written is told, and no more."""
    try:
        record_command(data_dir, action, target, detail)
    except OSError as error:
        screen.note(f"the audit trail cannot be written: {error.strerror or error}")
