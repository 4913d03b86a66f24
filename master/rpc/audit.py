"""What of the gRPC door is worth an entry of the audit trail: who comes, who goes, who is refused."""

from urllib.parse import unquote

import grpc

from fleetpulse.master.audit.entry import ANONYMOUS, AuditEntry, AuditOutcome
from fleetpulse.master.errors import FleetPulseError

_SOURCE = "grpc"


def entry_of(
    action: str,
    actor: str,
    target: str,
    peer: str,
    outcome: AuditOutcome = AuditOutcome.OK,
    status: grpc.StatusCode = grpc.StatusCode.OK,
    detail: str = "",
) -> AuditEntry:
    """``actor`` is the id of the worker that it was, empty where the master cannot tell; ``peer`` is as grpc has it."""
    who = f"worker:{actor}" if actor else ANONYMOUS
    return AuditEntry(who, None, _SOURCE, client_of(peer), action, target, outcome, status.name, detail)


def told(error: FleetPulseError) -> str:
    """Why not, in a word and in words."""
    return f"{error.reason}: {error}"


def client_of(peer: str) -> str:
    """The address in ``ipv4:127.0.0.1:40000`` or ``ipv6:%5B::1%5D:40000``; another peer as it is."""
    kind, _, address = unquote(peer).partition(":")
    return address.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else peer
