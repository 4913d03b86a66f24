"""master.store.encryption: environments, digests and the key file."""

import json
import stat
from pathlib import Path

import pytest
from sqlalchemy import text

from fleetpulse.master.errors import ConfigError, IdempotencyConflict
from fleetpulse.master.store.database import open_engines, parse_database_url
from fleetpulse.master.store.encryption import (
    KEY_NAME,
    KEYED_PREFIX,
    DecryptionFailed,
    Encryptor,
    new_key,
    read_key_file,
    read_or_create_key_file,
)
from fleetpulse.master.tasks import transitions
from fleetpulse.master.tasks.records import Idempotency
from tests.master.requests import task_request
from tests.master.store.builders import NOW, of, open_store, submit
from tests.master.store.encryptor import ENCRYPTOR, KEY
from tests.postgres import PostgresServer

SECRET = "hunter2-never-in-the-clear"
ENV = {"TOKEN": SECRET, "EMPTY": "", "HALF": "\ud800"}
OTHER = Encryptor([new_key()])


def test_encrypted_environment_is_decrypted() -> None:
    encrypted = ENCRYPTOR.encrypt(ENV)
    assert SECRET not in encrypted
    assert ENCRYPTOR.decrypt(encrypted) == ENV
    assert ENCRYPTOR.encrypt(ENV) != encrypted
    assert ENCRYPTOR.encrypt({}) == ""
    assert ENCRYPTOR.decrypt("") == {}
    for broken in (encrypted[:-4] + "AAAA", "x", OTHER.encrypt(ENV)):
        with pytest.raises(DecryptionFailed):
            ENCRYPTOR.decrypt(broken)
    assert KEY not in repr(ENCRYPTOR)


def test_key_can_be_replaced() -> None:
    fresh = new_key()
    both = Encryptor([fresh, KEY])
    assert both.decrypt(ENCRYPTOR.encrypt(ENV)) == ENV
    assert Encryptor([fresh]).decrypt(both.encrypt(ENV)) == ENV
    assert both.matches_digest(ENCRYPTOR.digest("d"), "d")
    assert both.matches_digest(both.digest("d"), "d")
    assert not both.matches_digest(both.digest("d"), "e")


def test_digest_depends_on_the_key() -> None:
    assert ENCRYPTOR.digest("d").startswith(KEYED_PREFIX)
    assert ENCRYPTOR.digest("d") != OTHER.digest("d")
    assert ENCRYPTOR.matches_digest(ENCRYPTOR.digest("d"), "d")
    assert not OTHER.matches_digest(ENCRYPTOR.digest("d"), "d")


def test_key_file_is_created_once_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    encrypted = read_or_create_key_file(folder).encrypt(ENV)
    path = folder / KEY_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert read_or_create_key_file(folder).decrypt(encrypted) == ENV
    assert [entry.name for entry in folder.iterdir()] == [KEY_NAME]


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644])
def test_key_file_that_others_may_read_is_refused(mode: int, tmp_path: Path) -> None:
    read_or_create_key_file(tmp_path)
    (tmp_path / KEY_NAME).chmod(mode)
    with pytest.raises(ConfigError, match=rf"others may read it \(mode {mode:04o}\); run: chmod 600"):
        read_or_create_key_file(tmp_path)


@pytest.mark.parametrize("content", ["", "short", "A" * 44, KEY + "\nnonsense", "\xe9"], ids=ascii)
def test_invalid_key_file_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_text(content)
    with pytest.raises(ConfigError, match="expected one key a line") as refused:
        read_key_file(path)
    assert "nonsense" not in str(refused.value)
    assert KEY not in str(refused.value)


def test_configured_key_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not there; openssl rand"):
        read_key_file(tmp_path / "none")


def test_only_load_live_returns_values_of_environments(database_url: str) -> None:
    with open_store(database_url) as store:
        task = submit(store, "t1", task_request("busybox", env=ENV))
        assert store.details("t1").task.request.env == dict.fromkeys(ENV, "***")
        assert store.load_live()[0].task == task
    with open_store(database_url, encryptor=OTHER) as store:
        found = store.load_live()[0].task
        assert found.env_is_lost
        assert list(found.request.env) == list(ENV)
        assert list(store.details("t1").task.request.env) == list(ENV)


def test_idempotency_key_works_after_a_change_of_the_encryption_key(database_url: str) -> None:
    change = transitions.submitted("t1", task_request("busybox", env=ENV), NOW)
    again = of(transitions.submitted("t2", task_request("busybox", env=ENV), NOW))
    with open_store(database_url) as store:
        store.submit(of(change), Idempotency("k", "digest"))
        assert store.submit(again, Idempotency("k", "digest")) == "t1"
        with pytest.raises(IdempotencyConflict):
            store.submit(again, Idempotency("k", "another"))
    with open_store(database_url, encryptor=Encryptor([new_key(), KEY])) as store:
        assert store.submit(again, Idempotency("k", "digest")) == "t1"


def test_sqlite_file_holds_no_value_of_an_environment(tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path}/db") as store:
        submit(store, "t1", task_request("busybox", env=ENV))
        assert "TOKEN" in content_of(tmp_path)  # names are no secret; and so this test can find something
        assert SECRET not in content_of(tmp_path)


def make_old(database_url: str) -> None:
    """As the version before left it: in the clear, without names."""
    engines = open_engines(parse_database_url(database_url), 1)
    with engines.writer.begin() as connection:
        for number in range(4):
            env = json.dumps([{}, ENV, ENV, {"LARGE": SECRET * 2000}][number], separators=(",", ":"))
            old = {"env": env, "digest": "plain digest", "id": f"t{number}"}
            sets = "UPDATE tasks SET env_names = NULL, env = :env, idempotency_digest = :digest WHERE task_id = :id"
            assert connection.execute(text(sets), old).rowcount == 1
    with engines.writer.begin() as connection:  # one that was pruned; its bytes stay where they were
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA secure_delete = OFF")  # as some builds have it, and others not
        connection.execute(text("DELETE FROM tasks WHERE task_id = 't3'"))
    engines.close()


def test_rows_of_an_older_version_are_encrypted_at_start(database_url: str) -> None:
    with open_store(database_url) as store:
        for number in range(4):
            change = of(transitions.submitted(f"t{number}", task_request("busybox", env={"A": "b"}), NOW))
            store.submit(change, Idempotency(f"k{number}", "digest"))
    make_old(database_url)
    if (path := parse_database_url(database_url).path) is not None:
        assert SECRET in content_of(path.parent)
    with open_store(database_url) as store:
        found = [live.task.request.env for live in store.load_live()]
        assert found == [{}, ENV, ENV]
        again = of(transitions.submitted("t9", task_request("busybox"), NOW))
        assert store.submit(again, Idempotency("k1", "plain digest")) == "t1"
    if path is not None:
        assert SECRET not in content_of(path.parent)


def test_no_column_of_postgresql_holds_a_value_of_an_environment(postgres: PostgresServer) -> None:
    database_url = postgres.create_schema()
    with open_store(database_url) as store:
        submit(store, "t1", task_request("busybox", env=ENV))
    engines = open_engines(parse_database_url(database_url), 1)
    with engines.reader.connect() as connection:
        (row,) = connection.execute(text("SELECT * FROM tasks")).all()
    engines.close()
    assert "TOKEN" in repr(row)
    assert SECRET not in repr(row)


def content_of(folder: Path) -> str:
    """All bytes of the database, with its write-ahead log."""
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir())).decode(errors="replace")
