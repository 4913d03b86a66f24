"""Equal refusals within a second: the first is told at once, the others together when the second is over.

So who scans or guesses can neither fill the disk nor push what others did out of the trail.
"""

from dataclasses import dataclass

from master.audit.entry import AuditEntry

MOST_KINDS = 32
"""Refusals that are told apart within a second; of further ones the client is not."""

OTHERS = "(others)"


@dataclass(slots=True)
class _Kind:
    latest: AuditEntry
    more: int = 0


class Repeats:
    """The refusals of the present second."""

    def __init__(self, most_kinds: int = MOST_KINDS) -> None:
        self._most_kinds = most_kinds
        self._kinds: dict[tuple[object, ...], _Kind] = {}

    def admit(self, entry: AuditEntry) -> AuditEntry | None:
        """What is to be told now: the entry, the same without its client where there are too many, or nothing."""
        key = _key(entry)
        if (kind := self._kinds.get(key)) is None and len(self._kinds) >= self._most_kinds:
            entry = entry._replace(client=OTHERS, actor=OTHERS, role=None, target="")
            key = _key(entry)
            kind = self._kinds.get(key)
        if kind is None:
            self._kinds[key] = _Kind(entry)
            return entry
        kind.latest = entry
        kind.more += 1
        return None

    def end(self) -> list[tuple[AuditEntry, int]]:
        """The second is over: the last of each kind that came again, and for how many it stands."""
        told = [(kind.latest, kind.more) for kind in self._kinds.values() if kind.more]
        self._kinds.clear()
        return told


def _key(entry: AuditEntry) -> tuple[object, ...]:
    """Equal are those of one client that differ in nothing but what they were about, and in the words for why."""
    reason, colon, _ = entry.detail.partition(": ")
    why = reason if colon and reason.isidentifier() else ""
    return entry.actor, entry.role, entry.door, entry.client, entry.action, entry.outcome, entry.status, why
