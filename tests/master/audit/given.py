"""Entries as tests want them."""

from typing import Any

from fleetpulse.master.audit.entry import AuditEntry, AuditOutcome

SUBMIT = AuditEntry(
    actor="ci", role="submit", door="rest", client="192.0.2.7", action="submit_task", target="/api/tasks/task-1",
    outcome=AuditOutcome.OK, status="201",
)  # fmt: skip


def entry(**fields: Any) -> AuditEntry:
    """A submit that went well, but for these fields."""
    return SUBMIT._replace(**fields)


def refusal(**fields: Any) -> AuditEntry:
    """Somebody without a token."""
    refused = {"actor": "anonymous", "role": None, "outcome": AuditOutcome.REFUSED, "status": "401"}
    return SUBMIT._replace(**{**refused, **fields})
