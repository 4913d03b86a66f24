"""Generates the Python code of the wire contract; with ``--check`` only reports whether that would change it."""

import argparse
import filecmp
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "proto/fleetpulse.proto"
GENERATED = [f"proto/fleetpulse_pb2{ending}" for ending in (".py", ".pyi", "_grpc.py", "_grpc.pyi")]


def generate(folder: Path) -> None:
    """Writes the generated files into ``folder``/fleetpulse/proto. Raises CalledProcessError when the compiler refuses.

    The compiler reads the contract under its import path.
    """
    # protoc finds its plugins (protoc-gen-mypy) on PATH, beside this interpreter.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    kinds = ["python_out=", "grpc_python_out=", "mypy_out=quiet:", "mypy_grpc_out=quiet:"]
    outputs = [f"--{kind}{folder}" for kind in kinds]
    command = [sys.executable, "-P", "-m", "grpc_tools.protoc", "-Isrc", *outputs, "fleetpulse/proto/fleetpulse.proto"]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PATH": path}, check=True)


def stale_files() -> list[str]:
    """Generated files that differ from the contract."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        _, different, absent = filecmp.cmpfiles(Path(folder) / "fleetpulse", ROOT, GENERATED, shallow=False)
    return sorted(different + absent)


def main() -> int:
    """Returns the exit status: 1 when ``--check`` found a stale file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if something would change")
    if not parser.parse_args().check:
        generate(ROOT / "src")
        return 0
    stale = stale_files()
    if stale:
        print(f"Not what {SOURCE} generates: {', '.join(stale)}. Run: make proto", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
