"""Checks the lock files: every package has hashes, and no version has a known vulnerability.

pip-audit asks the advisory service of PyPI, or one with the API of OSV. Without an answer the check prints one line and
succeeds, so that a machine without a network can still lint; with ``--required`` it fails.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"

ACCEPTED: dict[str, str] = {}
"""Vulnerabilities that do not affect FleetPulse: the reason by id."""

CONNECT_SECONDS = 5
FIRST_SECONDS = 12
"""Limit for the shortest file, which shows whether the service responds."""

ALL_SECONDS = 180

_NO_SERVICE = re.compile(r"connect|HTTP|timed out|SSL|proxy|resolve|vulnerability (service|feed)", re.IGNORECASE)


class NoService(Exception):
    """The advisory service does not answer."""


def unpinned(lock: Path) -> list[str]:
    """Requirements without exactly one version and its hashes."""
    text = lock.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [line for line in lines if not re.match(r"[A-Za-z0-9][\w.\[\],-]*==\S+ .*--hash=sha256:[0-9a-f]{64}", line)]


def vulnerabilities(locks: Sequence[Path], service: Sequence[str], limit_seconds: float) -> list[str]:
    """One line each. Raises ``NoService``, or ``SystemExit`` when pip-audit fails otherwise."""
    command = [
        *(sys.executable, "-P", "-m", "pip_audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off"),
        *("--format", "json", "--timeout", str(CONNECT_SECONDS), *service),
        *(word for name in ACCEPTED for word in ("--ignore-vuln", name)),
        *(word for lock in locks for word in ("--requirement", str(lock))),
    ]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=limit_seconds, check=False)
    except subprocess.TimeoutExpired:
        raise NoService(f"no answer within {limit_seconds:g} s") from None
    try:
        dependencies = json.loads(result.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        last = (result.stderr.strip().splitlines() or [f"it ended with {result.returncode}"])[-1]
        if _NO_SERVICE.search(result.stderr):
            raise NoService(last[:200]) from None
        raise SystemExit(f"pip-audit: {result.stderr.strip() or last}") from None
    unknown = [one["name"] for one in dependencies if "skip_reason" in one]
    if len(unknown) == len(dependencies):
        raise NoService("the service knows none of the packages")
    if unknown:
        print(f"Not checked for known vulnerabilities, unknown to the advisory service: {', '.join(unknown)}")
    return sorted({_describe(one, vulnerability) for one in dependencies for vulnerability in one.get("vulns", ())})


def _describe(dependency: dict[str, Any], vulnerability: dict[str, Any]) -> str:
    fixed = ", ".join(vulnerability.get("fix_versions", ())) or "no version"
    return f"{dependency['name']} {dependency['version']}: {vulnerability['id']}, fixed in {fixed}"


def main() -> int:
    """Returns the exit status: 1 for a package without hashes and for a vulnerability."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--osv-url", help="ask this service, with the API of OSV, in place of PyPI's")
    parser.add_argument("--required", action="store_true", help="fail if the service cannot be reached")
    parser.add_argument("--folder", type=Path, default=REQUIREMENTS, help="where the lock files are")
    arguments = parser.parse_args()
    locks = sorted(arguments.folder.glob("*.txt"), key=lambda lock: (lock.stat().st_size, lock.name))
    unpinned_lines = [f"{lock.name}: {line[:80]}" for lock in locks for line in unpinned(lock)]
    if unpinned_lines or not locks:
        print("\n".join(["Not pinned with hashes:", *unpinned_lines]), file=sys.stderr)
        return 1
    service = [] if arguments.osv_url is None else ["--vulnerability-service", "osv", "--osv-url", arguments.osv_url]
    try:
        found = vulnerabilities(locks[:1], service, FIRST_SECONDS) or vulnerabilities(locks, service, ALL_SECONDS)
    except NoService as error:
        print(f"Not checked for known vulnerabilities: the advisory service cannot be reached ({error})")
        return 1 if arguments.required else 0
    if found:
        print("\n".join(["Known vulnerabilities:", *found]), file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
