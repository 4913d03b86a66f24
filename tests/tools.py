"""The system programs that tests run: promtool, wrk and the like. `make tools` fetches them."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parent.parent
FETCHED = ROOT / ".tools" / "bin"


def require_tool(name: str) -> Path:
    """The path of a program. Without it the calling test skips and says why; where ``CI`` is set it fails."""
    path = find_tool(name, FETCHED, os.environ.get("PATH", os.defpath))
    return path or without_tool(name, in_ci=bool(os.environ.get("CI")))


def find_tool(name: str, fetched: Path, search_path: str) -> Path | None:
    """Looks in the folder of fetched programs, then along ``search_path``, which is written like PATH."""
    found = shutil.which(name, path=os.pathsep.join([str(fetched), search_path]))
    return Path(found) if found else None


def without_tool(name: str, *, in_ci: bool) -> NoReturn:
    """Ends the calling test: a skip, or in CI, which can fetch every program, a failure."""
    reason = f"needs {name}: `make tools` fetches it on Debian and Ubuntu; elsewhere install it and put it on PATH"
    if in_ci:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
