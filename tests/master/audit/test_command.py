"""master.audit.command"""

import os
import pwd
from pathlib import Path

from click.testing import CliRunner

from fleetpulse.master.audit.command import record_command
from fleetpulse.master.cli import fleetpulse
from tests.master.audit.given import entry
from tests.master.audit.trails import running_trail, written

USER = f"user:{pwd.getpwuid(os.getuid()).pw_name}"


def test_a_command_writes_beside_the_master(tmp_path: Path) -> None:
    with running_trail(tmp_path / "audit.jsonl") as one:
        one.trail.record(entry())
        record_command(tmp_path, "create_token", "ci", "submit", clock=lambda: 1.5)
    assert {line["action"] for line in written(tmp_path / "audit.jsonl")} == {"submit_task", "create_token"}


def test_who_makes_and_revokes_tokens_is_recorded_without_the_secret(tmp_path: Path) -> None:
    def run(*words: str) -> str:
        result = CliRunner().invoke(fleetpulse, ["token", *words, "--data-dir", str(tmp_path)])
        assert result.exit_code == 0, result.output
        return result.stdout.strip()

    secret = run("create", "ci", "--role", "submit")
    run("revoke", "ci")
    made, revoked = written(tmp_path / "audit.jsonl")
    assert (made["actor"], made["door"], made["action"], made["target"]) == (USER, "cli", "create_token", "ci")
    assert made["detail"].endswith(", submit")
    assert (revoked["actor"], revoked["action"]) == (USER, "revoke_token")
    assert secret.rpartition("_")[2] not in (tmp_path / "audit.jsonl").read_text()


def test_a_trail_that_cannot_be_written_keeps_nobody_from_revoking(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    result = CliRunner().invoke(fleetpulse, ["token", "create", "ci", "--data-dir", str(tmp_path)])
    assert result.exit_code == 0
    assert "the audit trail cannot be written: Is a directory" in result.stderr
