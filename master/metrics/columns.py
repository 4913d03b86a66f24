"""Lines of text by family and worker, in the order in which a scrape joins them.

Every family is a column, a list with a place for each worker, so a scrape joins lists as they are. A place that its
worker left is given to the next one that comes.
"""

from collections.abc import Sequence


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


class SteadyColumns(Columns):
    """Columns that seldom change: the text of each is kept until one of its lines does."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self._joined: list[bytes | None] = [None] * count

    def put(self, worker_id: str, row: Sequence[bytes]) -> None:
        place = self._place(worker_id)
        for number, (column, line) in enumerate(zip(self._columns, row, strict=True)):
            if column[place] != line:
                column[place] = line
                self._joined[number] = None

    def join(self, number: int) -> bytes:
        joined = self._joined[number]
        if joined is None:
            joined = self._joined[number] = super().join(number)
        return joined
