"""What a simulated fleet tells about itself."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from fleetpulse.worker.connection import Failure

NOT_STARTED, CONNECTING, CUT_OFF = "not started", "connecting", "cut off"
"""Reasons why a worker is not connected that are no failure. The last is by intent."""

_MAX_DETAILS = 160

Reason = Failure | str | None
"""Why a worker is not connected; ``None`` if it is."""


class Waiting(NamedTuple):
    """Workers that are not connected for the same reason."""

    workers: int
    reason: str
    """The status code of their last try, or one of the reasons above."""
    details: str = ""
    """Those of most of them."""


class FleetStatus(NamedTuple):
    workers: int
    connected: int
    heartbeats_sent: int
    waiting: tuple[Waiting, ...] = ()
    """The most frequent reason first."""


def group_waiting(reasons: Iterable[Reason]) -> list[Waiting]:
    """One group for each status code or other reason, the largest first. ``None`` is a worker that does not wait."""
    groups: dict[str, Counter[str]] = {}
    for reason in reasons:
        if isinstance(reason, Failure):
            groups.setdefault(reason.code.name, Counter())[reason.details] += 1
        elif reason is not None:
            groups.setdefault(reason, Counter())[""] += 1
    found = [
        Waiting(details.total(), reason, details.most_common(1)[0][0][:_MAX_DETAILS])
        for reason, details in groups.items()
    ]
    return sorted(found, key=lambda group: group.workers, reverse=True)
