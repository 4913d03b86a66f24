"""The file of tokens: private, whole, and refused when it is something else."""

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from fleetpulse.master.access.roles import Role
from fleetpulse.master.access.token_file import TokenFile, TokenFileError
from fleetpulse.master.access.tokens import Token, make_token


@pytest.fixture
def file(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "deep" / "tokens.json")


def add(file: TokenFile, name: str) -> str:
    token, secret = make_token(name, Role.READ, 1000.0, 60.0)
    file.change(lambda tokens: [*tokens, token])
    return secret


def test_no_file_is_no_tokens(file: TokenFile) -> None:
    assert file.read() == []


def test_what_is_written_is_read_again_and_nobody_else_may_read_it(file: TokenFile) -> None:
    secret = add(file, "ci")
    (token,) = file.read()
    assert (token.name, token.role, token.created, token.expires, token.revoked) == (
        "ci",
        Role.READ,
        1000.0,
        1060.0,
        None,
    )
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    text = file.path.read_text()
    assert secret not in text
    assert secret.rpartition("_")[2] not in text
    assert [path.name for path in file.path.parent.iterdir() if path.name.startswith(".")] == []


def test_what_root_writes_belongs_to_the_owner_of_the_folder(file: TokenFile) -> None:
    file.path.parent.mkdir()
    if os.geteuid() == 0:
        os.chown(file.path.parent, 12345, 12345)
    add(file, "ci")
    owners = {path.stat().st_uid for path in (file.path.parent, *file.path.parent.iterdir())}
    assert owners == {12345 if os.geteuid() == 0 else os.geteuid()}


def test_changes_at_the_same_time_lose_nothing(file: TokenFile) -> None:
    threads = [threading.Thread(target=add, args=(file, f"t{number}")) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {token.name for token in file.read()} == {f"t{number}" for number in range(20)}


def test_a_change_that_fails_changes_nothing(file: TokenFile) -> None:
    add(file, "ci")
    before = file.path.read_bytes()

    def fails(_tokens: list[Token]) -> list[Token]:
        raise LookupError

    with pytest.raises(LookupError):
        file.change(fails)
    assert file.path.read_bytes() == before


ALMOST = {"token_id": "00000000", "name": "ci", "role": "read", "digest": "0", "created": 1.0}


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", '{"version": 2, "tokens": []}', '{"version": 1}', '{"version": 1, "tokens": [{}]}',
        json.dumps({"version": 1, "tokens": [{**ALMOST, "role": "root"}]}),
        json.dumps({"version": 1, "tokens": [{**ALMOST, "role": "open"}]}),
        json.dumps({"version": 1, "tokens": [{**ALMOST, "created": "now"}]}),
        json.dumps({"version": 1, "tokens": [{**ALMOST, "expires": "never"}]}),
        json.dumps({"version": 1, "tokens": [{**ALMOST, "more": 1}]}),
    ],
)  # fmt: skip
def test_what_is_no_file_of_tokens_is_refused_and_kept(file: TokenFile, text: str) -> None:
    file.path.parent.mkdir()
    file.path.write_text(text)
    with pytest.raises(TokenFileError, match=str(file.path)):
        file.read()
    with pytest.raises(TokenFileError):
        add(file, "ci")
    assert file.path.read_text() == text


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TokenFileError, match="cannot be"):
        add(TokenFile(tmp_path / "file" / "tokens.json"), "ci")
