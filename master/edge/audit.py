"""What of the gate is worth an entry of the audit trail: whom it refused, and why."""

from fleetpulse.master.audit.entry import ANONYMOUS, AuditEntry, AuditOutcome

CONNECT, REQUEST = "connect", "request"
"""What was refused: the connection, or what was asked on it."""

_DOOR = "rest"


def entry_of(reason: str, words: str, address: str, action: str, status: str = "", target: str = "") -> AuditEntry:
    """Who it was is not known: nothing that a client says of itself has been read yet."""
    return AuditEntry(
        ANONYMOUS, None, _DOOR, address, action, target, AuditOutcome.REFUSED, status, f"{reason}: {words}"
    )  # fmt: skip
