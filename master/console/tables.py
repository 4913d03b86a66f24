"""Tables: aligned text for programs that read it, rich ones for people, with the columns that there is room for."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fleetpulse.master.console.clean import one_line
from fleetpulse.master.console.values import MISSING

_GAP = "  "
_LEAST_LAST = 12
"""Characters that the last column, which wraps, should have before another one is left out for it."""


class Column(NamedTuple):
    """One column. Where there is no room, the one with the highest ``spare`` goes first; those with 0 always stay."""

    title: str
    spare: int = 0
    right: bool = False
    wide: bool = False
    """Only shown when everything is asked for."""


class Cell(NamedTuple):
    """What stands in a row, and how it looks where there are colours."""

    text: str
    style: str = ""


Row = Sequence[Cell | str]


class Grid(NamedTuple):
    """A table that may be shown. Every text in it is clean."""

    columns: tuple[Column, ...]
    rows: list[list[Cell]]


def grid(columns: Sequence[Column], rows: Iterable[Row], *, wide: bool) -> Grid:
    """The columns that were asked for, with cells that are safe to show."""
    kept = [index for index, column in enumerate(columns) if wide or not column.wide]
    return Grid(tuple(columns[index] for index in kept), [[_cell(row[index]) for index in kept] for row in rows])


def plain_lines(table: Grid) -> list[str]:
    """Aligned, with a head, not cut to any width."""
    lines = [[column.title for column in table.columns], *([cell.text for cell in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        _GAP.join(
            text.rjust(width) if column.right else text.ljust(width)
            for text, width, column in zip(line, widths, table.columns, strict=True)
        ).rstrip()
        for line in lines
    ]


def fitted(table: Grid, width: int) -> Grid:
    """Without the columns that have no room in so many characters."""
    kept = list(range(len(table.columns)))
    while _needed(table, kept) > width:
        most = max(kept, key=lambda index: table.columns[index].spare)
        if table.columns[most].spare == 0:
            break
        kept.remove(most)
    return Grid(tuple(table.columns[index] for index in kept), [[row[index] for index in kept] for row in table.rows])


def full_width(table: Grid) -> int:
    """Characters of its longest line, when nothing is cut."""
    return max(map(len, plain_lines(table)))


def _needed(table: Grid, kept: Sequence[int]) -> int:
    widths = [max(len(table.columns[i].title), *(len(row[i].text) for row in table.rows), 0) for i in kept]
    return sum(widths[:-1]) + min(widths[-1], _LEAST_LAST) + len(_GAP) * (len(kept) - 1)


def _cell(cell: Cell | str) -> Cell:
    text, style = cell if isinstance(cell, Cell) else (cell, "")
    return Cell(one_line(text).strip() or MISSING, style)
