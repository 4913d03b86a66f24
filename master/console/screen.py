"""The output of a command: aligned text for a pipe, colours on a terminal, JSON for programs.

Results go to stdout, everything else to stderr. All text from the fleet is made safe for a terminal here.
"""

import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from fleetpulse.master.console import formatting as fmt

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

FORMATS = ("table", "wide", "json")
_GAP = "  "
_LAST_COLUMN_WIDTH = 12
"""Characters that the last column, which wraps, keeps before another column is left out for it."""


class Cell(NamedTuple):
    """A text and its rich style, which only a terminal shows."""

    text: str
    style: str = ""


Shown = Cell | str
_ToJson = Callable[[Any], Any]


def as_cell(shown: Shown) -> Cell:
    """Text without a style becomes a cell."""
    return shown if isinstance(shown, Cell) else Cell(shown)


class Column(NamedTuple):
    """One column of a table. On a narrow terminal the highest ``spare`` goes first; 0 always stays."""

    title: str
    value: Callable[[Any], Shown]
    """The cell of a record."""

    spare: int = 0
    right: bool = False
    wide: bool = False
    """Only part of ``-o wide``."""

    width: int = 0
    """Characters to reserve, however short the cells are."""

    def aligned(self, text: str, width: int) -> str:
        """The text, padded to a width."""
        return text.rjust(width) if self.right else text.ljust(width)


def read(record: Any, path: str) -> Any:
    """The value at a dotted path, as ``telemetry.memory.used_bytes``; ``None`` if any part is missing."""
    for name in path.split("."):
        record = (record or {}).get(name)
    return record


def field(
    path: str, show: Callable[[Any], str] = fmt.text, styles: Mapping[str, str] | None = None
) -> Callable[[Mapping[str, Any]], Cell]:
    """The value of a column: what is at a dotted path, shown by ``show``, with the style of its text."""
    return lambda record: styled(show(read(record, path)), styles or {})


def styled(text: str, styles: Mapping[str, str]) -> Cell:
    """The text with its style, if there is one."""
    return Cell(text, styles.get(text, ""))


def _safe(shown: Shown) -> Cell:
    cell = as_cell(shown)
    text = fmt.one_line(cell.text)
    return cell._replace(text=text if text.strip() else fmt.MISSING)


class Table(NamedTuple):
    """The columns to show and their cells, safe for a terminal."""

    columns: tuple[Column, ...]
    rows: list[list[Cell]]

    @classmethod
    def of(cls, columns: Iterable[Column], records: Iterable[Any], *, wide: bool = False) -> "Table":
        """The table of these records."""
        kept = tuple(column for column in columns if wide or not column.wide)
        return cls(kept, [[_safe(column.value(record)) for column in kept] for record in records])

    def lines(self, widths: Sequence[int] | None = None) -> list[str]:
        """Aligned lines with a head, not cut to any width."""
        texts = [[column.title for column in self.columns], *([cell.text for cell in row] for row in self.rows)]
        widths = widths or [max(map(len, column)) for column in zip(*texts, strict=True)]
        return [_GAP.join(map(Column.aligned, self.columns, row, widths)).rstrip() for row in texts]

    def fitted(self, width: int) -> "Table":
        """The table without the columns that do not fit into ``width`` characters."""
        rows = [[cell.text for cell in row] for row in self.rows]
        widths = [
            max(column.width, len(column.title), *(len(row[index]) for row in rows), 0)
            for index, column in enumerate(self.columns)
        ]
        kept = list(range(len(widths)))

        def needed() -> int:
            *others, last = (widths[index] for index in kept)
            return sum(others) + min(last, _LAST_COLUMN_WIDTH) + len(_GAP) * len(others)

        while needed() > width:
            last = max(kept, key=lambda index: self.columns[index].spare)
            if self.columns[last].spare == 0:
                break
            kept.remove(last)
        return Table(tuple(self.columns[i] for i in kept), [[row[i] for i in kept] for row in self.rows])


class Screen:
    """The stdout and stderr of one command."""

    def __init__(self, output: str, *, no_color: bool) -> None:
        self.is_json = output == "json"
        self.no_color = no_color
        self._is_wide = output == "wide"
        for stream in (sys.stdout, sys.stderr):
            # A character that the encoding lacks must not end the command.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")

    @property
    def is_terminal(self) -> bool:
        """Whether stdout is a terminal."""
        return sys.stdout.isatty()

    def json(self, value: Any) -> None:
        """Prints a value as JSON. On a terminal only ASCII, which can do no harm there."""
        click.echo(json.dumps(value, indent=2, ensure_ascii=self.is_terminal))

    def json_line(self, value: Any) -> None:
        """Prints a value as one line of JSON, at once."""
        click.echo(json.dumps(value, ensure_ascii=self.is_terminal))
        sys.stdout.flush()

    def result(self, value: Any, text: str) -> None:
        """Prints one line, or the value as JSON."""
        if self.is_json:
            self.json(value)
        else:
            self.line(text)

    def table(
        self, columns: Iterable[Column], records: Sequence[Any], *, empty: str, public: _ToJson | None = None
    ) -> None:
        """Prints a table, or the records as JSON, each after ``public``. For no record ``empty`` goes to stderr."""
        if self.is_json:
            self.json(list(map(public, records)) if public else records)
            return
        table = Table.of(columns, records, wide=self._is_wide)
        if not records:
            self.note(empty)
        if not self.is_terminal:
            click.echo("\n".join(table.lines()))
        elif records:
            self._print_table(table)

    def pairs(self, value: Any, pairs: Iterable[tuple[str, Shown]]) -> None:
        """Prints names and their texts, one pair a line, or the value as JSON."""
        if self.is_json:
            self.json(value)
            return
        cells = [(fmt.one_line(name), *as_cell(shown)) for name, shown in pairs]
        if not self.is_terminal:
            width = max(len(name) for name, _, _ in cells) + 2
            for name, text, _ in cells:
                click.echo(f"{name + ':':<{width}}{fmt.one_line(text)}")
            return
        from rich.table import Table as RichTable  # noqa: PLC0415 - a tenth of a second, which output into a pipe need not pay

        table = RichTable(box=None, show_header=False, pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, text, style in cells:
            table.add_row(name, _rich(Cell(fmt.one_line(text), style)))
        self.console().print(table)

    def plot(self, text: str) -> None:
        """Prints a plot. Its line is coloured on a terminal."""
        if not self.is_terminal:
            click.echo(text)
            return
        picture = _rich(Cell(text))
        picture.no_wrap = True
        picture.highlight_regex("[\u2801-\u28ff]+", "cyan")
        self.console().print(picture)

    def words(self, words: Iterable[Shown]) -> None:
        """Prints one line of words, at once."""
        cells = [cell._replace(text=fmt.one_line(cell.text)) for cell in map(as_cell, words) if cell.text]
        if self.is_terminal:
            self.console().print(_rich(Cell(_GAP)).join(map(_rich, cells)))
        else:
            click.echo(_GAP.join(cell.text for cell in cells))
        sys.stdout.flush()

    def line(self, text: str) -> None:
        """Prints one line on stdout."""
        click.echo(fmt.one_line(text))

    def note(self, text: str) -> None:
        """Prints one line on stderr."""
        click.echo(fmt.one_line(text), err=True)

    def console(self) -> "Console":
        """Rich's console on stdout. It obeys NO_COLOR and TERM by itself."""
        from rich.console import Console  # noqa: PLC0415 - see above

        return Console(file=sys.stdout, no_color=self.no_color or None, markup=False, emoji=False, highlight=False)

    def _print_table(self, table: Table) -> None:
        from rich.table import Table as RichTable  # noqa: PLC0415 - see above

        console = self.console()
        if self._is_wide:
            # The terminal breaks the lines, so that no column is squeezed to nothing.
            console.width = max(console.width, *map(len, table.lines()))
        else:
            table = table.fitted(console.width)
        rich_table = RichTable(box=None, pad_edge=False, header_style="bold")
        for column in table.columns:
            rich_table.add_column(
                _rich(Cell(column.title)), justify="right" if column.right else "left", overflow="fold",
                no_wrap=column.right,
            )  # fmt: skip
        for row in table.rows:
            rich_table.add_row(*map(_rich, row))
        console.print(rich_table)


def _rich(cell: Cell) -> "Text":
    from rich.text import Text  # noqa: PLC0415 - see above

    return Text(cell.text, cell.style)


def discard_stdout() -> None:
    """Sends the rest of stdout's buffer to nowhere, after its reader has ended."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, sys.stdout.fileno())
    except OSError:
        return  # stdout is not a file
    finally:
        os.close(devnull)
