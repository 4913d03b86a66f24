"""What of the gRPC door is worth an entry of the audit trail: who comes, who goes, who is refused."""

from urllib.parse import unquote

import grpc

from master.audit.entry import ANONYMOUS, AuditEntry, AuditOutcome
from master.errors import FleetPulseError
from master.rpc.handshakes import FailedHandshake

_DOOR = "rpc"


def entry_of(
    action: str,
    worker_id: str,
    peer: str,
    outcome: AuditOutcome = AuditOutcome.OK,
    status: grpc.StatusCode = grpc.StatusCode.OK,
    detail: str = "",
    target: str | None = None,
    *,
    is_known: bool = True,
) -> AuditEntry:
    """``peer`` as grpc has it; ``target``: what it was about, if not the worker itself; ``is_known``: the worker is
    who it says it is, as far as the master can tell."""
    actor = f"worker:{worker_id}" if is_known and worker_id else ANONYMOUS
    about = worker_id if target is None else target
    return AuditEntry(actor, None, _DOOR, client_of(peer), action, about, outcome, status.name, detail)


def handshake_entry(failure: FailedHandshake) -> AuditEntry:
    """Of one that the master refused. Its target is the address at which the master was asked."""
    entry = entry_of(
        "handshake", "", failure.peer, AuditOutcome.REFUSED, grpc.StatusCode.UNAVAILABLE,
        f"{failure.reason}: {failure.detail}",
    )  # fmt: skip
    return entry._replace(target=failure.local.partition(":")[2])


def told(error: FleetPulseError) -> str:
    """Why not, in a word and in words."""
    return f"{error.reason}: {error}"


def client_of(peer: str) -> str:
    """The address in ``ipv4:127.0.0.1:40000`` or ``ipv6:%5B::1%5D:40000``; another peer as it is."""
    kind, _, address = unquote(peer).partition(":")
    return address.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else peer
