"""tools/check_locks.py and tools/sbom.py: pinned dependencies, known vulnerabilities and the bill of materials."""

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.ports import LOCALHOST, free_port
from tests.test_project import ROOT, normalised, pins, requirements

HASH = "--hash=sha256:" + "0" * 64
PINNED = f"aaa==1.0 \\\n    {HASH} \\\n    {HASH}\n    # via bbb\nbbb==2.0 ; sys_platform == 'linux' {HASH}\n"


def check_locks(*flags: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    command: Sequence[str | Path] = [sys.executable, ROOT / "tools" / "check_locks.py", *flags]
    # Without a home pip-audit has no cache.
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent", **env}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one lock file."""
    (tmp_path / "runtime.txt").write_text(PINNED)
    return tmp_path


class Advisories(http.server.BaseHTTPRequestHandler):
    """A server with the API of OSV and one vulnerability, in aaa 1.0."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer: dict[str, Any] = {}
        if request["package"]["name"] == "aaa":
            answer = {
                "vulns": [
                    {
                        "id": "PYSEC-2026-1", "summary": "bad", "details": "bad", "aliases": [],
                        "published": "2026-01-01T00:00:00Z", "modified": "2026-01-01T00:00:00Z",
                        "affected": [
                            {
                                "package": {"name": "aaa", "ecosystem": "PyPI"},
                                "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}],
                            }
                        ],
                    }
                ]
            }  # fmt: skip
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


@contextmanager
def advisories() -> Iterator[str]:
    with http.server.ThreadingHTTPServer((LOCALHOST, 0), Advisories) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{LOCALHOST}:{server.server_port}/v1/query"
        finally:
            server.shutdown()
            thread.join()


def test_known_vulnerability_fails(folder: Path) -> None:
    with advisories() as url:
        result = check_locks("--folder", folder, "--osv-url", url)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "Known vulnerabilities:\naaa 1.0: PYSEC-2026-1, fixed in 1.1\n"


def test_no_known_vulnerability_prints_nothing(folder: Path) -> None:
    (folder / "runtime.txt").write_text(PINNED.replace("aaa", "ccc"))
    with advisories() as url:
        result = check_locks("--folder", folder, "--osv-url", url)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("service", ["osv", "pypi"])
def test_unreachable_service_is_reported_in_one_line_without_failing(folder: Path, service: str) -> None:
    closed_url = f"http://{LOCALHOST}:{free_port()}"
    flags = ["--osv-url", closed_url] if service == "osv" else []
    result = check_locks("--folder", folder, *flags, HTTPS_PROXY=closed_url)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("Not checked for known vulnerabilities: the advisory service cannot be reached (")
    assert result.stdout.count("\n") == 1
    assert check_locks("--folder", folder, "--required", *flags, HTTPS_PROXY=closed_url).returncode == 1


@pytest.mark.parametrize(
    "line",
    ["aaa==1.0", "aaa>=1.0 " + HASH, "aaa " + HASH, "aaa==1.0 --hash=md5:0", "https://a/b.whl", "-e .", "-r other.txt"],
)
def test_package_without_hashes_fails(folder: Path, line: str) -> None:
    (folder / "other.txt").write_text(f"{PINNED}{line}\n")
    result = check_locks("--folder", folder)
    assert result.returncode == 1
    assert result.stderr.splitlines() == ["Not pinned with hashes:", f"other.txt: {line[:80]}"]


def test_folder_without_locks_fails(tmp_path: Path) -> None:
    assert check_locks("--folder", tmp_path).returncode == 1


# The bill of materials


def test_bill_of_materials_is_valid_and_lists_the_runtime_lock(tmp_path: Path) -> None:
    target = tmp_path / "made" / "bill.json"
    result = subprocess.run(
        ["make", "--no-print-directory", "sbom", f"ARGS={target}", f"VENV={Path(sys.executable).parent.parent}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    text = target.read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    itself = bill["metadata"]["component"]
    assert (itself["name"], itself["type"]) == ("fleetpulse", "application")
    listed = {normalised(one["name"]): one["version"] for one in bill["components"]}
    assert listed == {name: pin for name, (pin, _) in pins("runtime").items()}
    assert requirements("runtime") <= listed.keys()
    assert all(one["purl"].startswith("pkg:pypi/") for one in bill["components"])
    assert all(hashes_of(one) for one in bill["components"])


def hashes_of(component: dict[str, Any]) -> list[Any]:
    references = component.get("externalReferences", ())
    return [*component.get("hashes", ()), *(each for one in references for each in one.get("hashes", ()))]
