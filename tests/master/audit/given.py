"""Audit entries for tests."""

from typing import Any

from msgspec import structs

from fleetpulse.master.audit.entries import AuditEntry, AuditOutcome, AuditRecord

SUBMIT = AuditEntry(
    actor="ci", role="submit", source="http", client="192.0.2.7", action="submit_task", target="/api/tasks/task-1",
    outcome=AuditOutcome.OK, status="201",
)  # fmt: skip


def entry(**fields: Any) -> AuditEntry:
    """A successful submit, with these fields replaced."""
    return structs.replace(SUBMIT, **fields)


def refusal(**fields: Any) -> AuditEntry:
    """A refused request without a token, with these fields replaced."""
    refused = {"actor": "anonymous", "role": None, "outcome": AuditOutcome.REFUSED, "status": "401"}
    return structs.replace(SUBMIT, **{**refused, **fields})


def recorded(time: float, **fields: Any) -> AuditRecord:
    """The entry of ``entry`` as it is read."""
    return AuditRecord(**{**structs.asdict(SUBMIT), **fields}, time=time, repeated=0)
