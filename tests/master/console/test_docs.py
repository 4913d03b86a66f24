"""docs/cli.md is complete"""

import re
from importlib.metadata import entry_points
from pathlib import Path

from fleetpulse.master.console import errors

PAGE = Path(__file__).resolve().parents[3] / "docs" / "cli.md"


def test_page_lists_every_command() -> None:
    listed = set(re.findall(r"^\| `(\w+)[ `]", PAGE.read_text(), re.MULTILINE))
    ours = {
        one.name
        for one in entry_points(group="fleetpulse.commands")
        if one.value.startswith("fleetpulse.master.console.")
    }
    assert ours <= listed


def test_page_and_help_list_every_exit_code() -> None:
    on_page = {int(code) for code in re.findall(r"^\| `(\d+)` \|", PAGE.read_text(), re.MULTILINE)}
    in_help = {int(code) for code in re.findall(r"^  (\d+) ", errors.EXIT_CODES_HELP, re.MULTILINE)}
    assert on_page == in_help == set(errors.ExitCode)
