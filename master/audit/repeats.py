"""Equal entries within a second: the first is told at once, the others together when the second is over.

So who scans, guesses, or signs in and out without end can neither fill the disk nor push what others did out of the
trail. A change is equal to another only if it was of the same thing.
"""

from dataclasses import dataclass

from fleetpulse.master.audit.entry import AuditEntry, AuditOutcome

MOST_KINDS = 32
"""Within a second. Of further refusals the client is not told; of further changes everything is, as they come."""

OTHERS = "(others)"


@dataclass(slots=True)
class _Kind:
    latest: AuditEntry
    more: int = 0


_Kinds = dict[tuple[object, ...], _Kind]


class Repeats:
    """The entries of the present second."""

    def __init__(self, most_kinds: int = MOST_KINDS) -> None:
        self._most_kinds = most_kinds
        self._refusals: _Kinds = {}
        self._changes: _Kinds = {}

    def admit(self, entry: AuditEntry) -> AuditEntry | None:
        """What is to be told now: the entry, the same without its client where there are too many, or nothing."""
        if entry.outcome is AuditOutcome.OK:
            kinds, key = self._changes, (*_key(entry), entry.target)
        else:
            kinds, key = self._refusals, _key(entry)
        kind = kinds.get(key)
        if kind is None and len(kinds) >= self._most_kinds:
            if kinds is self._changes:
                return entry
            entry = entry._replace(client=OTHERS, actor=OTHERS, role=None, target="")
            key = _key(entry)
            kind = kinds.get(key)
        if kind is None:
            kinds[key] = _Kind(entry)
            return entry
        kind.latest = entry
        kind.more += 1
        return None

    def end(self) -> list[tuple[AuditEntry, int]]:
        """The second is over: the last of each kind that came again, and for how many it stands."""
        told = [
            (kind.latest, kind.more)
            for kinds in (self._refusals, self._changes)
            for kind in kinds.values()
            if kind.more
        ]
        self._refusals.clear()
        self._changes.clear()
        return told


def _key(entry: AuditEntry) -> tuple[object, ...]:
    """Equal are those of one client that differ in nothing but what they were about, and in the words for why."""
    reason, colon, _ = entry.detail.partition(": ")
    why = reason if colon and reason.isidentifier() else ""
    return entry.actor, entry.role, entry.door, entry.client, entry.action, entry.outcome, entry.status, why
