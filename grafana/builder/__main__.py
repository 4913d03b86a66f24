"""Writes grafana/dashboards/*.json from the code; with ``--check`` only reports whether that would change them."""

import argparse
import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana.builder.control_plane import master, tasks
from grafana.builder.fleet import fleet
from grafana.builder.machines import gpus, worker

FOLDER = Path(__file__).resolve().parent.parent / "dashboards"


def render() -> dict[str, str]:
    """The files of ``FOLDER``, by name."""
    dashboards = (fleet(), worker(), tasks(), gpus(), master())
    return {
        f"{board.uid}.json": json.dumps(board, cls=JSONEncoder, indent=2, sort_keys=True) + "\n" for board in dashboards
    }


def changed_files(files: dict[str, str], folder: Path) -> list[str]:
    """The names of files that are missing, different or superfluous in the folder."""
    existing = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    return sorted(name for name in files.keys() | existing.keys() if files.get(name) != existing.get(name))


def main() -> int:
    """Returns the exit status: 1 when ``--check`` found a change."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if something would change")
    check = parser.parse_args().check
    files = render()
    changed = changed_files(files, FOLDER)
    if check:
        for name in changed:
            print(f"grafana/dashboards/{name} is out of date. Run: make dashboards", file=sys.stderr)
        return 1 if changed else 0
    FOLDER.mkdir(exist_ok=True)
    for name in changed:
        if name in files:
            (FOLDER / name).write_text(files[name], encoding="utf-8")
        else:
            (FOLDER / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
