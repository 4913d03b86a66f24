"""Pictures of the command line, as SVG: what real commands wrote on a real terminal. For ``screenshots.py``."""

import asyncio
import os
import re
from pathlib import Path

import pexpect
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from fleetpulse.master.console.client import MasterClient
from fleetpulse.master.console.stream import FleetWatcher
from fleetpulse.master.console.top import SPARKLINE_LENGTH, View
from fleetpulse.master.console.top_app import TopApp
from tests.e2e.processes import FLEETPULSE

_COLUMNS = 96
_TOP_SIZE = (110, 20)


def written(url: str, *words: str) -> str:
    """What a command wrote on a terminal, with its colours."""
    env = {**os.environ, "FLEETPULSE_URL": url, "TERM": "xterm-256color"}
    child = pexpect.spawn(FLEETPULSE, list(words), env=env, timeout=60, dimensions=(60, _COLUMNS), encoding="utf-8")
    child.expect(pexpect.EOF)
    child.close()
    return str(child.before).replace("\r\n", "\n")


def save(path: Path, title: str, text: str) -> None:
    """Draw a text with colours."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=_COLUMNS, file=nowhere, force_terminal=True)
        console.print(Text.from_ansi(text))
        path.write_text(within(console.export_svg(title=title, theme=MONOKAI)))


def within(svg: str) -> str:
    """A picture that loads no font from elsewhere."""
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def console_prompt(url: str, worker_id: str, images: Path) -> None:
    """A session with the prompt."""
    session = [f"master> {line}\n{written(url, *line.split())}" for line in ("workers", f"status {worker_id}")]
    save(images / "console-prompt.svg", "fleetpulse shell", "".join(session) + "master> ")


def console_tasks(url: str, _worker_id: str, images: Path) -> None:
    """The tasks, and why one waits."""
    save(images / "console-tasks.svg", "fleetpulse tasks", written(url, "tasks"))


def console_history(url: str, worker_id: str, images: Path) -> None:
    """Plots of an hour."""
    text = written(url, "history", worker_id, "--field", "cpu_usage", "--field", "memory_usage")
    save(images / "console-history.svg", f"fleetpulse history {worker_id}", text)


def console_top(url: str, _worker_id: str, images: Path) -> None:
    """The live table, after it has looked for a while."""

    async def look() -> None:
        client = MasterClient(url)
        app = TopApp(View(), client.now)
        watcher = FleetWatcher(client, on_fleet=app.show_fleet, on_error=app.show_error)
        watcher.start()
        try:
            async with app.run_test(size=_TOP_SIZE) as pilot:
                await pilot.pause(SPARKLINE_LENGTH + 1.0)
                (images / "console-top.svg").write_text(within(app.export_screenshot(title="fleetpulse top")))
        finally:
            watcher.stop()

    asyncio.run(look())


CONSOLE = (console_prompt, console_tasks, console_history, console_top)
