"""What a running master knows of tokens, while the file changes under it."""

from pathlib import Path

import pytest

from fleetpulse.master.access.book import OWNER, TokenStore
from fleetpulse.master.access.identity import Identity
from fleetpulse.master.access.owner import find_owner_secret, owner_secret
from fleetpulse.master.access.roles import Role
from fleetpulse.master.access.token_file import TokenFile
from fleetpulse.master.access.tokens import make_token

NOW = 1_000_000.0


class Desk:
    """A file of tokens, a book over it, and the clocks of both."""

    def __init__(self, folder: Path, **arguments: bool) -> None:
        self.file = TokenFile(folder / "tokens.json")
        self.owner = owner_secret(folder)
        self.time, self.monotonic = NOW, 0.0
        self.book = TokenStore(
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
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_open_until_the_first_token(desk: Desk) -> None:
    states = [desk.book.is_closed]
    secret = desk.make("ci", Role.SUBMIT)
    states.append(desk.book.is_closed)
    assert states == [False, True]
    assert desk.book.identify(secret) == Identity("ci", Role.SUBMIT)


def test_beyond_loopback_it_is_closed_from_the_start(tmp_path: Path) -> None:
    assert Desk(tmp_path, is_always_closed=True).book.is_closed


def test_what_is_no_text_is_not_the_owners_either(tmp_path: Path) -> None:
    book = TokenStore(TokenFile(tmp_path / "tokens.json"), "fp_owner")
    assert book.identify("fp_owner") is not None
    assert book.identify("fp_owner\ud800") is None


def test_a_secret_must_be_right_to_the_last_character(desk: Desk) -> None:
    secret = desk.make("ci")
    other = desk.make("other")
    wrong = [secret[:-1] + ("A" if secret[-1] != "A" else "B"), secret[:12] + other[12:], secret[:-1], secret + "A", ""]
    wrong += ["fp_", "é" * 55, secret[:-1] + "\ud800", secret.upper()]
    assert [desk.book.identify(one) for one in wrong] == [None] * len(wrong)


def test_an_expired_one_is_over_and_the_master_stays_closed(desk: Desk) -> None:
    secret = desk.make("ci", lifetime=60.0)
    desk.time += 59.9
    assert desk.book.identify(secret) is not None
    desk.time += 0.2
    assert desk.book.identify(secret) is None
    assert desk.book.is_closed


def test_a_revoked_one_is_over_and_the_master_stays_closed(desk: Desk) -> None:
    secret, other = desk.make("ci"), desk.make("other")
    desk.revoke("ci")
    assert desk.book.identify(secret) is None
    assert desk.book.identify(other) is not None
    desk.revoke("other")
    assert desk.book.is_closed


def test_a_file_that_breaks_lets_in_its_owner_alone_until_it_is_mended(desk: Desk) -> None:
    secret = desk.make("ci")
    good = desk.file.path.read_text()
    assert desk.book.identify(secret) is not None
    desk.file.path.write_text(good[:-10])
    desk.monotonic += 1.0
    assert desk.book.identify(secret) is None
    assert desk.book.is_closed
    assert desk.book.identify(desk.owner) == Identity(OWNER, Role.ADMIN)
    desk.file.path.write_text(good)
    desk.monotonic += 1.0
    assert desk.book.identify(secret) is not None


def test_the_owners_secret_stays_and_is_private(tmp_path: Path) -> None:
    secret = owner_secret(tmp_path)
    assert owner_secret(tmp_path) == secret == find_owner_secret(tmp_path)
    path = tmp_path / "owner-token"
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    assert find_owner_secret(tmp_path) is None
    assert owner_secret(tmp_path) != secret


def test_no_owners_secret_in_what_is_none(tmp_path: Path) -> None:
    assert find_owner_secret(tmp_path) is None
    (tmp_path / "owner-token").write_bytes(b"\xff")
    (tmp_path / "owner-token").chmod(0o600)
    assert find_owner_secret(tmp_path) is None
