"""Everybody who follows something now: so many at most, and none any more when the master stops."""

from typing import Protocol

import falcon

from master.api.problems import RETRY_AFTER_SECONDS
from master.errors import MasterStopping

MAX_FOLLOWERS = 500
"""Each holds a connection and a greenlet."""

STOPPING = "the master is stopping; come back in a moment"


class Endable(Protocol):
    """One who follows."""

    def end(self) -> None:
        """Let it have a last word and go. Does not wait."""
        ...


class Followers:
    """On the hub. ``doing`` is what they do, in words."""

    def __init__(self, most: int = MAX_FOLLOWERS, doing: str = "follow logs") -> None:
        self._most = most
        self._doing = doing
        self._following: set[Endable] = set()
        self._groups: list[Followers] = []
        self._is_ending = False

    def __len__(self) -> int:
        return len(self._following)

    def group(self, most: int, doing: str) -> "Followers":
        """Others, with a limit of their own, who end with these."""
        group = Followers(most, doing)
        self._groups.append(group)
        return group

    def admit(self, follower: Endable) -> None:
        """Raise ``MasterStopping``, or a 503 when there are as many as there may be."""
        if self._is_ending:
            raise MasterStopping(STOPPING)
        if len(self._following) >= self._most:
            told = f"{len(self._following)} readers {self._doing} already, which is as many as the master serves"
            raise falcon.HTTPServiceUnavailable(description=told, retry_after=RETRY_AFTER_SECONDS)
        self._following.add(follower)

    def leave(self, follower: Endable) -> None:
        """It follows no more; said twice, it changes nothing."""
        self._following.discard(follower)

    def end(self) -> None:
        """Admit nobody any more, and end those who are there. Does not wait."""
        self._is_ending = True
        for follower in list(self._following):
            follower.end()
        for group in self._groups:
            group.end()
