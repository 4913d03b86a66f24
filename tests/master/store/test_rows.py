"""master.store.rows: fields of a request with and without a column of their own"""

from sqlalchemy import update

from fleetpulse.master.store.database import open_engines, parse_database_url
from fleetpulse.master.store.rows import known_options, options_of
from fleetpulse.master.store.tables import tasks
from tests.master.requests import task_request
from tests.master.store.builders import open_store, submit

FIELDS = ("user", "network", "read_only")


def test_fields_without_a_column_are_stored_unless_they_have_their_default() -> None:
    assert options_of(task_request("busybox", user="1000", read_only=False), FIELDS) == {
        "user": "1000",
        "read_only": False,
    }
    assert options_of(task_request("busybox"), FIELDS) is None


def test_stored_options_are_read_back() -> None:
    assert known_options({"user": "1000", "read_only": False}, FIELDS) == {"user": "1000", "read_only": False}
    assert known_options(None, FIELDS) == {}


def test_options_of_another_version_are_ignored(database_url: str) -> None:
    assert known_options({"user": "1000", "shell": "zsh"}, FIELDS) == {"user": "1000"}
    with open_store(database_url) as store:
        task = submit(store, "t1")
        engines = open_engines(parse_database_url(database_url), 1)
        with engines.writer.begin() as connection:
            connection.execute(update(tasks).values(options={"shell": "zsh"}))
        engines.close()
        assert store.details("t1").task == task
