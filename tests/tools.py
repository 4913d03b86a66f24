"""The system programs that tests run: promtool, wrk and the like. `make tools` fetches them."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parent.parent
FETCHED = ROOT / ".tools" / "bin"


def require_tool(name: str) -> Path:
    """The path of a program. If it is missing, the calling test is skipped, or fails where ``CI`` is set."""
    path = find_tool(name, FETCHED, os.environ.get("PATH", os.defpath))
    return path or without_tool(name, in_ci=bool(os.environ.get("CI")))


def find_tool(name: str, fetched: Path, search_path: str) -> Path | None:
    """Searches the folder of fetched programs, then ``search_path``, which has the format of PATH."""
    found = shutil.which(name, path=os.pathsep.join([str(fetched), search_path]))
    return Path(found) if found else None


def without_tool(name: str, *, in_ci: bool) -> NoReturn:
    """Skips the calling test, or fails it in CI, which can fetch every program."""
    reason = f"needs {name}: `make tools` fetches it on Debian and Ubuntu; elsewhere install it and put it on PATH"
    if in_ci:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
