"""Lines of text by family and worker, in the order in which a scrape joins them.

Every family is a column, a list with a place for each worker, so a scrape joins lists as they are. A place that its
worker left is given to the next one that comes.
"""

from array import array
from collections.abc import Sequence
from itertools import accumulate
from operator import sub


class Columns:
    """``count`` columns. A row are the lines of one worker, one for each column; an empty one where it has none."""

    def __init__(self, count: int) -> None:
        self._columns: list[list[bytes]] = [[] for _ in range(count)]
        self._nothing = [b""] * count
        self._places: dict[str, int] = {}
        self._vacant: list[int] = []

    def put(self, worker_id: str, row: Sequence[bytes]) -> None:
        """Set the worker's lines."""
        place = self._place(worker_id)
        for column, line in zip(self._columns, row, strict=True):
            column[place] = line

    def remove(self, worker_id: str) -> None:
        """Drop the worker's lines, if there are any."""
        if worker_id in self._places:
            self.put(worker_id, self._nothing)
            self._vacant.append(self._places.pop(worker_id))

    def join(self, number: int) -> bytes:
        """The text of a column."""
        return b"".join(self._columns[number])

    def _place(self, worker_id: str) -> int:
        place = self._places.get(worker_id)
        if place is None:
            if self._vacant:
                place = self._vacant.pop()
            else:
                place = len(self._places)
                for column in self._columns:
                    column.append(b"")
            self._places[worker_id] = place
        return place


class StaticColumns(Columns):
    """Columns that seldom change: the text of each is kept until one of its lines does."""

    def __init__(self, count: int) -> None:
        super().__init__(0)
        self._nothing = [b""] * count
        self._steady = [_StaticColumn() for _ in range(count)]

    def put(self, worker_id: str, row: Sequence[bytes]) -> None:
        place = self._place(worker_id)
        for column, line in zip(self._steady, row, strict=True):
            column.put(place, line)

    def join(self, number: int) -> bytes:
        return self._steady[number].join()


class _StaticColumn:
    """The lines are kept joined, and once only: the text, and where each of them starts in it."""

    __slots__ = ("_changed", "_starts", "_text")

    def __init__(self) -> None:
        self._text = b""
        self._starts = array("Q", (0,))
        """Of each line, and where the last one ends."""

        self._changed: dict[int, bytes] = {}
        """Lines by place that are not in the text yet."""

    def put(self, place: int, line: bytes) -> None:
        if self._line(place) != line:
            self._changed[place] = line

    def join(self) -> bytes:
        if self._changed:
            text, starts = self._text, self._starts
            starts.extend(starts[-1:] * (max(self._changed) + 2 - len(starts)))
            lengths = [*map(sub, starts[1:], starts)]
            pieces: list[bytes] = []
            done = 0
            for place, line in sorted(self._changed.items()):
                pieces += text[done : starts[place]], line
                done = starts[place + 1]
                lengths[place] = len(line)
            self._text = b"".join((*pieces, text[done:]))
            self._starts = array("Q", accumulate(lengths, initial=0))
            self._changed.clear()
        return self._text

    def _line(self, place: int) -> bytes:
        changed = self._changed.get(place)
        if changed is not None:
            return changed
        return self._text[self._starts[place] : self._starts[place + 1]] if place + 1 < len(self._starts) else b""
