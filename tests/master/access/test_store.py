"""The token file, the store that follows its changes, and the owner's secret."""

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from fleetpulse.master.access.store import (
    MAX_SESSIONS_PER_TOKEN,
    OWNER,
    SessionStore,
    TokenFile,
    TokenFileError,
    TokenStore,
    find_owner_secret,
    owner_secret,
)
from fleetpulse.master.access.tokens import Identity, Role, Token, make_token

NOW = 1_000_000.0


class Site:
    """A token file, a store that reads it, and the store's clocks."""

    def __init__(self, folder: Path, **arguments: bool) -> None:
        self.file = TokenFile(folder / "tokens.json")
        self.owner = owner_secret(folder)
        self.time, self.monotonic = NOW, 0.0
        self.store = TokenStore(
            self.file, self.owner, clock=lambda: self.time, monotonic=lambda: self.monotonic, **arguments
        )

    def make(self, name: str, role: Role = Role.READ, lifetime: float | None = None) -> str:
        token, secret = make_token(name, role, self.time, lifetime)
        self.file.change(lambda tokens: [*tokens, token])
        self.monotonic += 1.0
        return secret

    def revoke(self, name: str) -> None:
        self.file.change(lambda old: [one._replace(revoked=self.time) if one.name == name else one for one in old])
        self.monotonic += 1.0


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_auth_is_required_from_the_first_token_on(site: Site) -> None:
    states = [site.store.auth_required]
    secret = site.make("ci", Role.SUBMIT)
    states.append(site.store.auth_required)
    assert states == [False, True]
    assert site.store.identify(secret) == Identity("ci", Role.SUBMIT)


def test_auth_is_required_from_the_start_beyond_loopback(tmp_path: Path) -> None:
    assert Site(tmp_path, always_requires_auth=True).store.auth_required


def test_secret_that_is_not_unicode_is_not_the_owners(tmp_path: Path) -> None:
    store = TokenStore(TokenFile(tmp_path / "tokens.json"), "fp_owner")
    assert store.identify("fp_owner") is not None
    assert store.identify("fp_owner\ud800") is None


def test_secret_must_match_to_the_last_character(site: Site) -> None:
    secret = site.make("ci")
    other = site.make("other")
    wrong = [secret[:-1] + ("A" if secret[-1] != "A" else "B"), secret[:12] + other[12:], secret[:-1], secret + "A", ""]
    wrong += ["fp_", "é" * 55, secret[:-1] + "\ud800", secret.upper()]
    assert [site.store.identify(one) for one in wrong] == [None] * len(wrong)


def test_expired_token_is_refused_and_auth_stays_required(site: Site) -> None:
    secret = site.make("ci", lifetime=60.0)
    site.time += 59.9
    assert site.store.identify(secret) is not None
    site.time += 0.2
    assert site.store.identify(secret) is None
    assert site.store.auth_required


def test_revoked_token_is_refused_and_auth_stays_required(site: Site) -> None:
    secret, other = site.make("ci"), site.make("other")
    site.revoke("ci")
    assert site.store.identify(secret) is None
    assert site.store.identify(other) is not None
    site.revoke("other")
    assert site.store.auth_required


def test_only_the_owner_is_accepted_while_the_file_is_broken(site: Site) -> None:
    secret = site.make("ci")
    good = site.file.path.read_text()
    assert site.store.identify(secret) is not None
    site.file.path.write_text(good[:-10])
    site.monotonic += 1.0
    assert site.store.identify(secret) is None
    assert site.store.auth_required
    assert site.store.identify(site.owner) == Identity(OWNER, Role.ADMIN)
    site.file.path.write_text(good)
    site.monotonic += 1.0
    assert site.store.identify(secret) is not None


def test_owner_secret_is_stable_and_private(tmp_path: Path) -> None:
    secret = owner_secret(tmp_path)
    assert owner_secret(tmp_path) == secret == find_owner_secret(tmp_path)
    path = tmp_path / "owner-token"
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    assert find_owner_secret(tmp_path) is None
    assert owner_secret(tmp_path) != secret


def test_no_owner_secret_in_a_missing_or_invalid_file(tmp_path: Path) -> None:
    assert find_owner_secret(tmp_path) is None
    (tmp_path / "owner-token").write_bytes(b"\xff")
    (tmp_path / "owner-token").chmod(0o600)
    assert find_owner_secret(tmp_path) is None


@pytest.fixture
def file(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "deep" / "tokens.json")


def add(file: TokenFile, name: str) -> str:
    token, secret = make_token(name, Role.READ, 1000.0, 60.0)
    file.change(lambda tokens: [*tokens, token])
    return secret


def test_missing_file_has_no_tokens(file: TokenFile) -> None:
    assert file.read() == []


def test_tokens_are_read_back_and_the_file_is_private(file: TokenFile) -> None:
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


def test_file_written_by_root_belongs_to_the_owner_of_the_folder(file: TokenFile) -> None:
    file.path.parent.mkdir()
    if os.geteuid() == 0:
        os.chown(file.path.parent, 12345, 12345)
    add(file, "ci")
    owners = {path.stat().st_uid for path in (file.path.parent, *file.path.parent.iterdir())}
    assert owners == {12345 if os.geteuid() == 0 else os.geteuid()}


def test_concurrent_changes_lose_nothing(file: TokenFile) -> None:
    threads = [threading.Thread(target=add, args=(file, f"t{number}")) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {token.name for token in file.read()} == {f"t{number}" for number in range(20)}


def test_failed_change_leaves_the_file_as_it_was(file: TokenFile) -> None:
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
def test_invalid_file_is_refused_and_kept(file: TokenFile, text: str) -> None:
    file.path.parent.mkdir()
    file.path.write_text(text)
    with pytest.raises(TokenFileError, match=str(file.path)):
        file.read()
    with pytest.raises(TokenFileError):
        add(file, "ci")
    assert file.path.read_text() == text


def test_error_names_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TokenFileError, match="cannot be"):
        add(TokenFile(tmp_path / "file" / "tokens.json"), "ci")


def test_many_sessions_of_one_token_end_no_session_of_another(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    (reader, often), (admin, once) = (make_token(name, Role.READ, 0.0, None) for name in ("reader", "admin"))
    file.change(lambda _tokens: [reader, admin])
    sessions = SessionStore(TokenStore(file))
    begun = [sessions.begin(secret) for secret in (once, *[often] * 2000)]
    kept = [one[1].name for one in begun if one is not None and sessions.identity(one[0]) is not None]
    assert kept == ["admin", *["reader"] * MAX_SESSIONS_PER_TOKEN]
