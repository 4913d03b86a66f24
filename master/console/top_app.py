"""The live table of ``top``: a textual application that shows what the feed hears."""

from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Footer, Input, Static

from fleetpulse.master.console.clean import one_line
from fleetpulse.master.console.errors import INTERRUPTED
from fleetpulse.master.console.feed import Fleet
from fleetpulse.master.console.tables import Cell
from fleetpulse.master.console.top_rows import (
    COLUMNS,
    MOST_ROWS,
    SORT_KEYS,
    Past,
    View,
    chosen,
    headline,
    row,
    shown_columns,
)

_REFRESH_SECONDS = 1.0


class TopApp(App[int]):
    """Shows a fleet. ``heard`` and ``troubled`` may be called from any thread."""

    TITLE = "FleetPulse"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #headline { height: 1; text-style: bold; padding: 0 1; }
    #trouble { height: auto; color: $error; padding: 0 1; display: none; }
    #filter { display: none; height: 3; }
    DataTable { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "leave(0)", "Quit"),
        Binding("ctrl+c", f"leave({INTERRUPTED})", show=False, priority=True),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("escape", "no_filter", "All", show=False),
        Binding("r", "reverse", "Reverse"),
        *(Binding(key, f"sort('{name}')", name.capitalize()) for name, key in SORT_KEYS.items()),
    ]

    def __init__(self, view: View, now: Callable[[], float]) -> None:
        """``now``: Unix seconds by the master's clock."""
        super().__init__()
        self._view = view
        self._now = now
        self._fleet: Fleet | None = None
        self._past = Past()
        self._trouble = ""
        self._columns: list[int] = []
        self._cells: dict[str, list[Cell]] = {}

    def heard(self, fleet: Fleet) -> None:
        """The fleet of now; shown with the next tick."""
        self._fleet, self._trouble = fleet, ""

    def troubled(self, trouble: str) -> None:
        """What is wrong with the master; shown until the fleet is heard again."""
        self._trouble = one_line(trouble)

    def compose(self) -> ComposeResult:
        """The widgets."""
        yield Static("connecting", id="headline", markup=False)
        yield Static("", id="trouble", markup=False)
        yield DataTable[Text](cursor_type="row", zebra_stripes=True)
        yield Input(placeholder="part of an id, a host name or a state", id="filter")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to tick."""
        self.query_one(DataTable).focus()
        self._tick()
        self.set_interval(_REFRESH_SECONDS, self._tick)

    def on_resize(self) -> None:
        """There may be room for other columns."""
        self._show()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while somebody types."""
        self._view = self._view._replace(filter=event.value)
        self._show()

    def on_input_submitted(self) -> None:
        """Back to the table, with the filter."""
        self.set_focus(self.query_one(DataTable))
        self.query_one("#filter").display = bool(self._view.filter)

    def action_leave(self, code: int) -> None:
        """End."""
        self.exit(code)

    def action_sort(self, name: str) -> None:
        """Sort by this; the same again turns it round."""
        is_same = name == self._view.sort
        self._view = self._view._replace(sort=name, is_reversed=is_same and not self._view.is_reversed)
        self._show()

    def action_reverse(self) -> None:
        """Turn the order round."""
        self._view = self._view._replace(is_reversed=not self._view.is_reversed)
        self._show()

    def action_filter(self) -> None:
        """Ask for a filter."""
        box = self.query_one("#filter", Input)
        box.display = True
        # At once: what is typed next is meant for it.
        self.set_focus(box)

    def action_no_filter(self) -> None:
        """Show all again."""
        self.set_focus(self.query_one(DataTable))
        box = self.query_one("#filter", Input)
        box.value, box.display = "", False

    def _tick(self) -> None:
        trouble = self.query_one("#trouble", Static)
        trouble.display = bool(self._trouble)
        trouble.update(self._trouble)
        if self._fleet is not None:
            self._past.note(self._fleet)
            self._show()

    def _show(self) -> None:
        if self._fleet is None:
            return
        found = chosen(self._fleet, self._view)
        shown = found[:MOST_ROWS]
        self.query_one("#headline", Static).update(headline(self._fleet, self._view, len(shown), len(found)))
        now = self._now()
        rows = {worker_id: row(worker_id, worker, self._past, now) for worker_id, worker in shown}
        longest = max((len(cells[0].text) for cells in rows.values()), default=0)
        columns = shown_columns(self.size.width, longest)
        # The order of a dict counts here: a table cannot move its rows.
        if columns == self._columns and list(rows) == list(self._cells):
            self._update(rows)
        else:
            self._rebuild(rows, columns)
        self._cells = rows

    def _update(self, rows: dict[str, list[Cell]]) -> None:
        table = self.query_one(DataTable)
        for worker_id, cells in rows.items():
            for index in self._columns:
                if cells[index] != self._cells[worker_id][index]:
                    table.update_cell(worker_id, COLUMNS[index].title, _text(index, cells[index]), update_width=True)

    def _rebuild(self, rows: dict[str, list[Cell]], columns: list[int]) -> None:
        table = self.query_one(DataTable)
        cursor = table.cursor_row
        table.clear(columns=True)
        self._columns = columns
        for index in columns:
            table.add_column(_text(index, Cell(COLUMNS[index].title)), key=COLUMNS[index].title)
        for worker_id, cells in rows.items():
            table.add_row(*(_text(index, cells[index]) for index in columns), key=worker_id)
        table.move_cursor(row=cursor)


def _text(index: int, cell: Cell) -> Text:
    return Text(cell.text, cell.style, justify="right" if COLUMNS[index].right else "left")
