"""master.api.logs, but for what follows"""

import gzip
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.master.api.task_logs import SLICE_BYTES, last_lines, torn_bytes
from fleetpulse.master.api.task_stream import decoded, whole_characters
from tests.master.api.task_api import TaskApi
from tests.master.api.test_problems import problem

PATH = "/api/tasks/task-1/logs"
TEXT = {"Accept": "text/plain"}


@pytest.fixture
def running(tasks: TaskApi) -> TaskApi:
    """With one task, which runs."""
    tasks.fake.place(tasks.submit(max_retries=2))
    tasks.fake.run("task-1")
    return tasks


def logs(tasks: TaskApi, query: str = "") -> Any:
    return tasks.get(PATH, query_string=query)


# JSON


def test_log_is_empty_before_the_first_attempt(tasks: TaskApi) -> None:
    tasks.submit()
    nothing = {
        "task_id": "task-1",
        "attempt": 0,
        "offset": 0,
        "next_offset": 0,
        "size": 0,
        "complete": False,
        "logs": "",
    }
    for query in ("", "tail=5", "offset=-5", "offset=5"):
        assert logs(tasks, query) == nothing
    tasks.client.simulate_delete("/api/tasks/task-1")
    assert logs(tasks) == {**nothing, "complete": True}


def test_growing_log_is_read_from_the_next_offset(running: TaskApi) -> None:
    running.fake.say("task-1", b"one\n")
    first = logs(running)
    assert first == {
        "task_id": "task-1",
        "attempt": 1,
        "offset": 0,
        "next_offset": 4,
        "size": 4,
        "complete": False,
        "logs": "one\n",
    }
    running.fake.say("task-1", b"two\n")
    assert logs(running, "offset=4")["logs"] == "two\n"
    assert logs(running, "offset=4&limit=2").items() >= {"logs": "tw", "next_offset": 6, "complete": False}.items()
    running.fake.end("task-1")
    assert logs(running)["complete"] is True
    assert logs(running, "limit=7")["complete"] is False
    assert logs(running, "offset=8").items() >= {"logs": "", "offset": 8, "complete": True}.items()


def test_negative_offset_counts_from_the_end(running: TaskApi) -> None:
    running.fake.say("task-1", b"0123456789")
    assert logs(running, "offset=-3").items() >= {"logs": "789", "offset": 7, "next_offset": 10}.items()
    assert logs(running, "offset=-3&limit=1")["logs"] == "7"
    assert logs(running, "offset=-99").items() >= {"logs": "0123456789", "offset": 0}.items()


def test_tail_counts_lines(running: TaskApi) -> None:
    running.fake.say("task-1", b"one\ntwo\nthree\n")
    assert logs(running, "tail=1").items() >= {"logs": "three\n", "offset": 8}.items()
    assert logs(running, "tail=2")["logs"] == "two\nthree\n"
    assert logs(running, "tail=99").items() >= {"logs": "one\ntwo\nthree\n", "offset": 0}.items()
    assert logs(running, "tail=2&limit=8")["logs"] == "o\nthree\n"


def test_pages_do_not_split_characters(running: TaskApi) -> None:
    text = "aé€😀" * 50
    running.fake.say("task-1", text.encode())
    running.fake.end("task-1")
    for limit in range(4, 12):
        offset, found, complete = 0, "", False
        while not complete:
            page = logs(running, f"offset={offset}&limit={limit}")
            found, offset, complete = found + page["logs"], page["next_offset"], page["complete"]
        assert found == text
    assert logs(running, "offset=-2")["logs"] == ""
    assert logs(running, "offset=-5")["logs"] == "😀"


def test_incomplete_character_is_held_back_while_the_task_runs(running: TaskApi) -> None:
    running.fake.say("task-1", b"a\xe2\x82")
    assert logs(running).items() >= {"logs": "a", "next_offset": 1, "size": 3}.items()
    assert logs(running, "offset=1").items() >= {"logs": "", "next_offset": 1}.items()
    running.fake.end("task-1")
    assert logs(running).items() >= {"logs": "a\ufffd", "next_offset": 3, "complete": True}.items()


def test_limit_below_one_character_still_makes_progress(running: TaskApi) -> None:
    running.fake.say("task-1", "😀".encode())
    assert logs(running, "limit=1").items() >= {"logs": "\ufffd", "next_offset": 1}.items()


def test_invalid_utf8_becomes_replacement_characters(running: TaskApi) -> None:
    running.fake.say("task-1", b"\xff\x00\x1b[31m\n")
    assert logs(running)["logs"] == "\ufffd\x00\x1b[31m\n"


def test_each_attempt_has_its_own_log(running: TaskApi) -> None:
    running.fake.say("task-1", b"first")
    running.fake.end("task-1", 1)
    assert logs(running).items() >= {"attempt": 1, "logs": "first", "complete": True}.items()
    running.fake.place("task-1")
    assert logs(running).items() >= {"attempt": 2, "logs": "", "complete": False}.items()
    running.fake.say("task-1", b"second")
    assert logs(running)["logs"] == "second"
    assert logs(running, "attempt=1").items() >= {"attempt": 1, "logs": "first", "complete": True}.items()
    told = problem(running.client.simulate_get(PATH, query_string="attempt=3"), 404)["detail"]
    assert told == "task task-1 has had 2 attempts, and no attempt 3"


def test_expired_log_is_a_410(running: TaskApi) -> None:
    running.fake.expired.add("task-1")
    for query in ("", "format=text", "tail=1", "follow=true", "follow=true&tail=1"):
        problem(running.client.simulate_get(PATH, query_string=query), 410)


# As it is


@pytest.mark.parametrize(("query", "headers"), [("format=text", {}), ("", TEXT), ("", {"Accept": "text/*, */*;q=0.1"})])
def test_text_format_returns_raw_bytes(running: TaskApi, query: str, headers: dict[str, str]) -> None:
    running.fake.say("task-1", b"one\n\xff\xe2\x82")
    result = running.client.simulate_get(PATH, query_string=query, headers=headers)
    assert result.content == b"one\n\xff\xe2\x82"
    assert result.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert result.headers["X-Content-Type-Options"] == "nosniff"
    told = {name: value for name, value in result.headers.items() if name.lower().startswith("x-log")}
    assert {name.lower(): value for name, value in told.items()} == {
        "x-log-attempt": "1",
        "x-log-offset": "0",
        "x-log-next-offset": "7",
        "x-log-size": "7",
        "x-log-complete": "false",
    }


@pytest.mark.parametrize(
    "accept", ["*/*", "application/json", "application/json, text/plain;q=0.5", "image/png", "", "x"]
)
def test_json_is_the_default_format(running: TaskApi, accept: str) -> None:
    result = running.client.simulate_get(PATH, headers={"Accept": accept})
    assert result.headers["Content-Type"] == "application/json"
    assert "Accept" in result.headers["Vary"]
    asked = running.client.simulate_get(PATH, query_string="format=json", headers=TEXT)
    assert asked.headers["Content-Type"] == "application/json"


def test_text_format_with_offset_and_limit(running: TaskApi) -> None:
    running.fake.say("task-1", b"one\ntwo\nthree")
    running.fake.end("task-1")

    def text(query: str) -> tuple[bytes, str, str]:
        result = running.client.simulate_get(PATH, query_string=f"format=text&{query}")
        return result.content, result.headers["X-Log-Next-Offset"], result.headers["X-Log-Complete"]

    assert text("tail=1") == (b"three", "13", "true")
    assert text("offset=4&limit=3") == (b"two", "7", "false")
    assert text("offset=-5") == (b"three", "13", "true")


def test_text_format_streams_a_long_log_without_a_limit(running: TaskApi) -> None:
    log = bytes(range(256)) * (5 * SLICE_BYTES // 256) + b"end"
    log += log
    running.fake.say("task-1", log)
    result = running.client.simulate_get(PATH, headers=TEXT)
    assert result.content == log
    assert result.headers["Content-Length"] == result.headers["X-Log-Size"] == str(len(log))
    head = running.client.simulate_head(PATH, headers=TEXT)
    assert dict(head.headers) == dict(result.headers)
    page = running.client.simulate_get(PATH, query_string="limit=1000", headers=TEXT)
    assert page.content == log[:1000]
    assert len(logs(running, "offset=0")["logs"]) <= 1024 * 1024
    assert logs(running)["next_offset"] in range(1024 * 1024 - 3, 1024 * 1024 + 1)


def test_log_is_compressed_on_request(running: TaskApi) -> None:
    running.fake.say("task-1", b"the same line\n" * 1000)
    result = running.client.simulate_get(PATH, headers={**TEXT, "Accept-Encoding": "gzip"})
    assert gzip.decompress(result.content) == b"the same line\n" * 1000


# Queries


@pytest.mark.parametrize(
    ("query", "field", "why"),
    [
        ("attempt=0", "attempt", "at least 1"),
        ("attempt=-1", "attempt", "at least 1"),
        ("attempt=x", "attempt", "whole number"),
        ("offset=x", "offset", "whole number"),
        ("offset=9999999999999999", "offset", "at most"),
        ("offset=-9999999999999999", "offset", "at least"),
        ("tail=0", "tail", "at least 1"),
        ("tail=100001", "tail", "at most 100000"),
        ("tail=all", "tail", "whole number"),
        ("limit=0", "limit", "at least 1"),
        ("limit=1048577", "limit", "at most 1048576"),
        ("format=xml", "format", "must be one of"),
        ("format=text&format=json", "format", "given once"),
        ("follow=yes", "follow", "true or false"),
        ("follow", "follow", "true or false"),
        ("follow=true&follow=true", "follow", "true or false"),
        ("since=5", "since", "is not known"),
        ("tail=5&offset=5", "tail", "together with offset"),
        ("follow=true&limit=5", "limit", "together with follow"),
        ("follow=true&format=text", "format", "together with follow"),
    ],
)
def test_invalid_query_is_a_422(running: TaskApi, query: str, field: str, why: str) -> None:
    result = running.client.simulate_get(PATH, query_string=query)
    assert result.status_code == 422, result.text
    (error,) = result.json["errors"]
    assert error["field"] == field
    assert why in error["message"]


@given(st.text(), st.data())
def test_text_is_cut_only_between_characters(text: str, data: st.DataObject) -> None:
    log = text.encode()
    cut = data.draw(st.integers(0, len(log)))
    kept = whole_characters(log[:cut])
    assert cut - kept <= 3
    assert decoded(log[:kept]) + decoded(log[kept:]) == text
    torn = torn_bytes(log[cut:])
    assert decoded(log[: cut + torn]) + decoded(log[cut + torn :]) == text


@given(st.binary())
def test_at_most_three_bytes_are_cut(data: bytes) -> None:
    assert 0 <= len(data) - whole_characters(data) <= 3
    assert 0 <= torn_bytes(data) <= 3


@pytest.mark.parametrize("data", [b"", b"a", "é".encode(), "€".encode(), "😀".encode(), b"\x80", b"\x80" * 9])
def test_complete_data_is_kept(data: bytes) -> None:
    assert whole_characters(data) == len(data)


@pytest.mark.parametrize(
    ("data", "lines", "expected"),
    [
        (b"", 1, b""),
        (b"a", 1, b"a"),
        (b"a\n", 1, b"a\n"),
        (b"a\nb", 1, b"b"),
        (b"a\nb\n", 1, b"b\n"),
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\n\n", 1, b"\n"),
        (b"a\nb", 2, b"a\nb"),
        (b"a\nb", 9, b"a\nb"),
        (b"\n\n\n", 2, b"\n\n"),
    ],
)
def test_last_lines(data: bytes, lines: int, expected: bytes) -> None:
    assert data[last_lines(data, lines) :] == expected
