"""Where the output of a command goes: plain text into a pipe, rich text onto a terminal, JSON for programs."""

import io
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from fleetpulse.master.console.clean import one_line
from fleetpulse.master.console.tables import Cell, Column, Grid, Row, fitted, full_width, grid, plain_lines

if TYPE_CHECKING:
    from rich.console import Console

FORMATS = ("table", "wide", "json")


class Screen:
    """One command's stdout and stderr. What was asked for goes to stdout, all else to stderr."""

    def __init__(self, output: str, *, no_color: bool) -> None:
        self.output = output
        self.no_color = no_color
        for stream in (sys.stdout, sys.stderr):
            # A character that the terminal's encoding lacks is no reason to end.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")

    @property
    def is_terminal(self) -> bool:
        """Whether somebody looks at stdout."""
        return sys.stdout.isatty()

    @property
    def is_json(self) -> bool:
        """Whether JSON was asked for."""
        return self.output == "json"

    @property
    def is_wide(self) -> bool:
        """Whether all columns were asked for."""
        return self.output == "wide"

    def json(self, value: Any, *, indent: int | None = 2) -> None:
        """A value as JSON. On a terminal nothing but ASCII, so that no character can do harm."""
        click.echo(json.dumps(value, indent=indent, ensure_ascii=self.is_terminal))

    def table(self, columns: Sequence[Column], rows: Sequence[Row], *, nothing: str) -> None:
        """A table; ``nothing`` is said on stderr where it has no row."""
        table = grid(columns, rows, wide=self.is_wide)
        if not rows:
            self.note(nothing)
        if self.is_terminal:
            if rows:
                self._rich_table(table)
        else:
            click.echo("\n".join(plain_lines(table)))

    def pairs(self, pairs: Sequence[tuple[str, Cell | str]]) -> None:
        """Names with their values, one a line."""
        pairs = [(one_line(name), value) for name, value in pairs]
        width = max(len(name) for name, _ in pairs) + 2
        if not self.is_terminal:
            for name, value in pairs:
                click.echo(f"{name + ':':<{width}}{one_line(value.text if isinstance(value, Cell) else value)}")
            return
        from rich.table import Table  # noqa: PLC0415 - a tenth of a second, which output into a pipe need not pay
        from rich.text import Text  # noqa: PLC0415

        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in pairs:
            text, style = value if isinstance(value, Cell) else (value, "")
            table.add_row(name, Text(one_line(text), style))
        self.console().print(table)

    def drawing(self, text: str) -> None:
        """A plot, whose line has a colour on a terminal."""
        if not self.is_terminal:
            click.echo(text)
            return
        from rich.text import Text  # noqa: PLC0415 - see above

        picture = Text(text, no_wrap=True)
        picture.highlight_regex("[\u2801-\u28ff]+", "cyan")
        self.console().print(picture)

    def words(self, words: Sequence[Cell | str]) -> None:
        """One line, of which some words may have a colour, at once."""
        cells = [word if isinstance(word, Cell) else Cell(word) for word in words]
        if self.is_terminal:
            from rich.text import Text  # noqa: PLC0415 - see above

            parts = [(one_line(cell.text), cell.style) for cell in cells if cell.text]
            self.console().print(Text("  ").join(Text(text, style) for text, style in parts))
        else:
            click.echo("  ".join(one_line(cell.text) for cell in cells if cell.text))
        sys.stdout.flush()

    def line(self, text: str) -> None:
        """One line on stdout."""
        click.echo(one_line(text))

    def note(self, text: str) -> None:
        """One line on stderr, for people."""
        click.echo(one_line(text), err=True)

    def console(self) -> "Console":
        """Rich's console on stdout; it heeds NO_COLOR and TERM by itself."""
        from rich.console import Console  # noqa: PLC0415 - see above

        return Console(
            file=sys.stdout, no_color=self.no_color or None, markup=False, emoji=False, highlight=False, soft_wrap=False
        )

    def _rich_table(self, table: Grid) -> None:
        from rich.table import Table  # noqa: PLC0415 - see above
        from rich.text import Text  # noqa: PLC0415

        console = self.console()
        shown = table if self.is_wide else fitted(table, console.width)
        rich_table = Table(box=None, pad_edge=False, header_style="bold")
        for column in shown.columns:
            rich_table.add_column(
                Text(column.title), justify="right" if column.right else "left", overflow="fold", no_wrap=column.right
            )
        for row in shown.rows:
            rich_table.add_row(*(Text(cell.text, cell.style) for cell in row))
        if self.is_wide:
            # Everything was asked for: the terminal breaks the lines, and no column is squeezed to nothing.
            console.width = max(console.width, full_width(shown))
        console.print(rich_table)


def forget_stdout() -> None:
    """Whoever read stdout has gone; what is left in its buffer must go somewhere when the process ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    except OSError:
        return  # it is no file, so it has no pipe either
    finally:
        os.close(nowhere)
