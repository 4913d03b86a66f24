"""Writes the bill of materials: requirements/runtime.txt as CycloneDX, with its hashes."""

import argparse
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

RUNTIME = Path(__file__).resolve().parent.parent / "requirements" / "runtime.txt"
SPEC_VERSION = "1.6"

# cyclonedx-py does not read setup.py.
_PYPROJECT = """\
[project]
name = "fleetpulse"
version = "{version}"
description = "Telemetry and Docker tasks for a fleet of machines, made for Prometheus"
license = {{ text = "Apache-2.0" }}
"""


def write(target: Path) -> None:
    """Raises ``subprocess.CalledProcessError``. The same lock gives the same file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        pyproject = Path(folder) / "pyproject.toml"
        pyproject.write_text(_PYPROJECT.format(version=version("fleetpulse")), encoding="utf-8")
        command = [
            # It warns that a lock has no dependencies between packages.
            *(sys.executable, "-P", "-W", "ignore::UserWarning", "-m", "cyclonedx_py", "requirements", str(RUNTIME)),
            *("--pyproject", str(pyproject), "--mc-type", "application", "--output-reproducible"),
            *("--spec-version", SPEC_VERSION, "--output-format", "JSON", "--output-file", str(target)),
        ]
        subprocess.run(command, check=True)


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path, help="the file to write")
    target: Path = parser.parse_args().target
    try:
        write(target)
    except subprocess.CalledProcessError as error:
        return error.returncode
    print(f"{target} lists what {RUNTIME.name} pins")
    return 0


if __name__ == "__main__":
    sys.exit(main())
