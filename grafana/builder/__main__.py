"""Writes grafana/dashboards/*.json from the code; with ``--check``, only tells whether doing so would change them."""

import argparse
import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana.builder.fleet import fleet
from grafana.builder.gpus import gpus
from grafana.builder.master import master
from grafana.builder.tasks import tasks
from grafana.builder.worker import worker

FOLDER = Path(__file__).resolve().parent.parent / "dashboards"


def written() -> dict[str, str]:
    """The text of each file in ``FOLDER``, by its name."""
    boards = (fleet(), worker(), tasks(), gpus(), master())
    return {
        f"{board.uid}.json": json.dumps(board, cls=JSONEncoder, indent=2, sort_keys=True) + "\n" for board in boards
    }


def differing(files: dict[str, str], folder: Path) -> list[str]:
    """The names of the files that are not in the folder as they would be written, or should not be there."""
    there = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    return sorted(name for name in files.keys() | there.keys() if files.get(name) != there.get(name))


def main() -> int:
    """The exit status: 1 when ``--check`` found that a dashboard is not what would be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if something would change")
    check = parser.parse_args().check
    files = written()
    changed = differing(files, FOLDER)
    if check:
        for name in changed:
            print(f"grafana/dashboards/{name} is not what the code says. Run: make dashboards", file=sys.stderr)
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
