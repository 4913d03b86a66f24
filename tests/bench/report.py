"""A run as a table on the terminal, as JSON, and as a part of docs/performance.md."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from tests.bench.figures import SECTIONS, Figure, Results
from tests.bench.processes import BenchError

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"

_HEADINGS = {"cpu": "CPU", "memory": "memory", "kernel": "kernel", "python": "Python", "libraries": "libraries",
             "fleetpulse": "FleetPulse", "pushgateway": "Pushgateway"}  # fmt: skip


class Run(NamedTuple):
    """The results of a run and its host."""

    date: str
    command: str
    seconds: float
    host: Mapping[str, str]
    results: Results

    def to_json(self) -> dict[str, Any]:
        """The run as JSON, with the goals."""
        return {
            **self._asdict(),
            "results": {str(workers): dict(row) for workers, row in self.results.items()},
            "goals": list(self.evaluated_goals()),
        }

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "Run":
        """Reads the JSON of ``to_json``."""
        results = {int(workers): row for workers, row in kept["results"].items()}
        return cls(kept["date"], kept["command"], kept["seconds"], kept["host"], results)

    def evaluated_goals(self) -> Iterator[dict[str, Any]]:
        """Yields every goal of a measured figure."""
        for section in SECTIONS:
            for figure in section.figures:
                for workers, goal in figure.goals.items():
                    value = self.results.get(workers, {}).get(figure.keys[-1])
                    if value is not None:
                        yield {
                            "workers": workers,
                            "figure": figure.keys[-1],
                            "value": value,
                            "goal": f"{goal.sign} {goal.limit:g}",
                            "met": goal.is_met(value),
                        }


class _Line(NamedTuple):
    label: str
    values: tuple[str, ...]
    goal: str
    met: str


def print_table(run: Run, console: Console) -> None:
    """The table, with the host below it."""
    table = Table(title="FleetPulse benchmark", title_justify="left")
    table.add_column("")
    for workers in _columns(run):
        table.add_column(_heading(workers), justify="right")
    table.add_column("goal")
    table.add_column("met")
    for title, lines in _sections(run):
        table.add_section()
        table.add_row(f"[bold]{title}[/bold]")
        for line in lines:
            table.add_row(line.label, *line.values, line.goal, _coloured(line.met))
    console.print(table)
    for heading, words in _conditions(run):
        console.print(f"{heading}: {words}", highlight=False)


def write_docs(run: Run, path: Path) -> None:
    """Replaces the text between the two markers."""
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise BenchError(f"{path.name} must hold the line {BEGIN} once, and after it {END}")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    path.write_text(f"{before}{BEGIN}\n{_markdown(run)}{END}{after}", encoding="utf-8")


def _markdown(run: Run) -> str:
    columns = _columns(run)
    lines = [
        *(f"- {heading}: {words}" for heading, words in _conditions(run)),
        "",
        f"| | {' | '.join(map(_heading, columns))} | goal | met |",
        f"|---|{'---:|' * len(columns)}---|---|",
    ]
    for title, rows in _sections(run):
        lines.append(f"| **{title}** |{' |' * len(columns)} | |")
        lines += [f"| {row.label} | {' | '.join(row.values)} | {row.goal} | {row.met} |" for row in rows]
    return "\n".join(lines) + "\n"


def _conditions(run: Run) -> Iterator[tuple[str, str]]:
    yield "date", run.date
    yield "command", f"`{run.command}`"
    for key, heading in _HEADINGS.items():
        yield heading, run.host[key]


def _columns(run: Run) -> list[int]:
    return sorted(run.results)


def _heading(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers:,}"


def _sections(run: Run) -> Iterator[tuple[str, list[_Line]]]:
    """The sections with measured figures."""
    for section in SECTIONS:
        lines = [_line(figure, run) for figure in section.figures]
        if any(value for line in lines for value in line.values):
            yield section.title, lines


def _line(figure: Figure, run: Run) -> _Line:
    values, goals, met = [], [], []
    for workers in _columns(run):
        found = [run.results[workers].get(key) for key in figure.keys]
        values.append(_shown(figure, found))
        goal, decisive = figure.goals.get(workers), found[-1]
        if goal is not None and decisive is not None:
            limit = f"{goal.sign} {figure.unit.show(goal.limit)} {figure.unit.name}".rstrip()
            goals.append(f"{_heading(workers)}: {limit}")
            met.append("yes" if goal.is_met(decisive) else "NO")
    return _Line(figure.label, tuple(values), "; ".join(goals), "; ".join(met))


def _shown(figure: Figure, found: list[float | None]) -> str:
    known = [figure.unit.show(value) for value in found if value is not None]
    return f"{' / '.join(known)} {figure.unit.name}".rstrip() if known else ""


def _coloured(met: str) -> str:
    return f"[red]{met}[/red]" if "NO" in met else f"[green]{met}[/green]"
