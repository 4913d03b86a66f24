"""The terminal application of ``top``, with textual."""

from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Footer, Input, Static

from fleetpulse.master.console import top
from fleetpulse.master.console.errors import ExitCode
from fleetpulse.master.console.formatting import one_line
from fleetpulse.master.console.screen import Cell, Column, Table
from fleetpulse.master.console.stream import FleetSnapshot

_REFRESH_SECONDS = 1.0
_CELL_PADDING = 2
"""Characters around every cell of a ``DataTable``."""


class TopApp(App[int]):
    """Shows the fleet. ``show_fleet`` and ``show_error`` may be called from any thread; the next tick shows them."""

    TITLE = "FleetPulse"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #headline { height: 1; text-style: bold; padding: 0 1; }
    #error { height: auto; color: $error; padding: 0 1; display: none; }
    #filter { display: none; height: 3; }
    DataTable { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "leave(0)", "Quit"),
        Binding("ctrl+c", f"leave({ExitCode.INTERRUPTED:d})", show=False, priority=True),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("escape", "no_filter", "All", show=False),
        Binding("r", "reverse", "Reverse"),
        *(Binding(key, f"sort('{name}')", name.capitalize()) for name, key in top.SORT_KEYS.items()),
    ]

    def __init__(self, view: top.View, now: Callable[[], float]) -> None:
        """``now``: Unix seconds by the master's clock."""
        super().__init__()
        self._view = view
        self._fleet: FleetSnapshot | None = None
        self._history = top.ReadingHistory()
        self._error = ""
        self._columns = top.table_columns(self._history, now)
        self._shown_columns: tuple[Column, ...] = ()
        self._rows: dict[str, list[Cell]] = {}

    def show_fleet(self, fleet: FleetSnapshot) -> None:
        """Sets the fleet and clears the error."""
        self._fleet, self._error = fleet, ""

    def show_error(self, error: str) -> None:
        """Sets an error, which stays until the next fleet."""
        self._error = one_line(error)

    def compose(self) -> ComposeResult:
        yield Static("connecting", id="headline", markup=False)
        yield Static("", id="error", markup=False)
        yield DataTable[Text](cursor_type="row", zebra_stripes=True)
        yield Input(placeholder="part of an id, a host name or a state", id="filter")
        yield Footer()

    def on_mount(self) -> None:
        self.query_one(DataTable).focus()
        self.tick()
        self.set_interval(_REFRESH_SECONDS, self.tick)

    def on_resize(self) -> None:
        self._show()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._view = self._view._replace(filter=event.value)
        self._show()

    def on_input_submitted(self) -> None:
        self.set_focus(self.query_one(DataTable))
        self.query_one("#filter").display = bool(self._view.filter)

    def action_leave(self, code: int) -> None:
        self.exit(code)

    def action_sort(self, name: str) -> None:
        is_same = name == self._view.sort
        self._view = self._view._replace(sort=name, is_reversed=is_same and not self._view.is_reversed)
        self._show()

    def action_reverse(self) -> None:
        self._view = self._view._replace(is_reversed=not self._view.is_reversed)
        self._show()

    def action_filter(self) -> None:
        box = self.query_one("#filter", Input)
        box.display = True
        # At once, so that the next keys go there.
        self.set_focus(box)

    def action_no_filter(self) -> None:
        self.set_focus(self.query_one(DataTable))
        box = self.query_one("#filter", Input)
        box.value, box.display = "", False

    def tick(self) -> None:
        """Shows the latest fleet and error."""
        if not self.query(Static):
            return  # at the end the widgets go before the timer
        error = self.query_one("#error", Static)
        error.display = bool(self._error)
        error.update(self._error)
        if self._fleet is not None:
            self._history.add(self._fleet)
            self._show()

    def _show(self) -> None:
        if self._fleet is None:
            return
        found = top.select_workers(self._fleet, self._view)
        shown = found[: top.MAX_ROWS]
        self.query_one("#headline", Static).update(top.headline(self._fleet, self._view, len(shown), len(found)))
        table = Table.of(self._columns, shown).fitted(self.size.width - _CELL_PADDING)
        rows = {record[0]: row for record, row in zip(shown, table.rows, strict=True)}
        # A table cannot move its rows, so the order of the dicts counts.
        if table.columns == self._shown_columns and list(rows) == list(self._rows):
            self._update(rows)
        else:
            self._rebuild(rows, table.columns)
        self._rows = rows

    def _update(self, rows: dict[str, list[Cell]]) -> None:
        table = self.query_one(DataTable)
        for worker_id, cells in rows.items():
            for column, cell, old in zip(self._shown_columns, cells, self._rows[worker_id], strict=True):
                if cell != old:
                    table.update_cell(worker_id, column.title, _text(column, cell), update_width=True)

    def _rebuild(self, rows: dict[str, list[Cell]], columns: tuple[Column, ...]) -> None:
        table = self.query_one(DataTable)
        cursor = table.cursor_row
        table.clear(columns=True)
        self._shown_columns = columns
        for column in columns:
            table.add_column(_text(column, Cell(column.title)), key=column.title)
        for worker_id, cells in rows.items():
            table.add_row(*map(_text, columns, cells), key=worker_id)
        table.move_cursor(row=cursor)


def _text(column: Column, cell: Cell) -> Text:
    return Text(cell.text, cell.style, justify="right" if column.right else "left")
