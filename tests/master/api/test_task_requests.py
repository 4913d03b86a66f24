"""master.tasks.request, by POST /api/tasks: every rule of a request"""

import gc
import hashlib
import inspect
import json
from types import FrameType
from typing import Any

import pytest
from falcon.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetpulse.master.api.tasks import parse_request
from fleetpulse.master.errors import QuotaExceeded
from fleetpulse.master.tasks.records import Task
from fleetpulse.master.tasks.request import TaskRequest
from tests.master.api.task_api import JSON, TaskApi
from tests.master.requests import task_request

MIB = 1024 * 1024


def post_text(tasks: TaskApi, body: str) -> Result:
    return tasks.client.simulate_post("/api/tasks", body=body, headers=JSON)


def refusals(tasks: TaskApi, body: object) -> list[dict[str, Any]]:
    """What is wrong with a body, which must be refused for it."""
    result = post_text(tasks, json.dumps(body))
    assert result.status_code == 422, result.text
    assert result.headers["Content-Type"] == "application/problem+json"
    assert tasks.get("/api/tasks") == []
    errors: list[dict[str, Any]] = result.json["errors"]
    return errors


# What is taken


def test_minimal_request(tasks: TaskApi) -> None:
    result = tasks.post({"docker_image": "busybox"})
    assert result.status_code == 201
    assert result.headers["Location"] == f"/api/tasks/{result.json['task_id']}"
    assert result.json["status"] == "queued"
    assert result.json["queue_reason"] == "no worker is there"
    (found,) = tasks.fake._tasks.values()
    assert found.request == task_request("busybox")


def test_request_with_every_field() -> None:
    body = {
        "docker_image": "python:3.9",
        "name": "größe 1",
        "command": ["python", "-c", "print(1)\nprint(2)"],
        "env": {"KEY": "-----BEGIN\n\tx\r\n", "_x1": ""},
        "cpu_required": 2,
        "memory_required": 1024.0,
        "gpu_required": 0.0,
        "priority": 5,
        "max_retries": 3,
        "timeout_seconds": 1.5,
        "labels": {"team/owner": "me"},
        "constraints": {"zone": "eu-1", "worker_id": ["a", "b"]},
    }
    spec, idempotency = parse_request(body, None)
    assert idempotency is None
    assert spec == task_request(
        docker_image="python:3.9",
        name="größe 1",
        command=("python", "-c", "print(1)\nprint(2)"),
        env={"KEY": "-----BEGIN\n\tx\r\n", "_x1": ""},
        cpu_required=2.0,
        memory_required=1024,
        gpu_required=0,
        priority=5,
        max_retries=3,
        timeout_seconds=1.5,
        labels={"team/owner": "me"},
        constraints={"zone": ("eu-1",), "worker_id": ("a", "b")},
    )
    assert isinstance(spec.memory_required, int)
    assert isinstance(spec.cpu_required, float)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", ()),
        ([], ()),
        ("sleep 10", ("sleep", "10")),
        ("  sleep \t 10\n", ("sleep", "10")),
        ("sh -c 'echo \"hi\"; exit 3'", ("sh", "-c", 'echo "hi"; exit 3')),
        ('echo "a b" c\\ d', ("echo", "a b", "c d")),
        ("echo ''", ("echo", "")),
        ("echo $HOME `id` > /etc/passwd # no", ("echo", "$HOME", "`id`", ">", "/etc/passwd", "#", "no")),
        (["echo", ""], ("echo", "")),
    ],
)
def test_command_is_split_into_words_without_expansion(command: object, words: tuple[str, ...]) -> None:
    assert parse_request({"docker_image": "busybox", "command": command}, None)[0].command == words


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cpu_required", 0.01), ("cpu_required", 1024), ("memory_required", 6), ("memory_required", 16 * MIB),
        ("gpu_required", 64), ("priority", 0), ("priority", 100), ("max_retries", 100), ("timeout_seconds", None),
        ("timeout_seconds", 30 * 86400), ("timeout_seconds", 0.001), ("name", "n" * 128), ("name", ""),
        ("env", {f"E{number}": "" for number in range(1000)}), ("env", {"E" * 255: "x" * 131_071}),
        ("labels", {f"l{number}": "x" * 256 for number in range(64)}), ("constraints", {"z": ["x"] * 32}),
        ("command", ["x"] * 4096),
    ],
)  # fmt: skip
def test_values_at_the_limits_are_accepted(tasks: TaskApi, field: str, value: object) -> None:
    assert tasks.submit(**{field: value})


# What is refused

BAD_FIELDS: list[tuple[str, object, str]] = [
    # (field, value, what its refusal says)
    ("docker_image", None, "must be a string"),
    ("docker_image", 5, "must be a string"),
    ("docker_image", "", "must not be empty"),
    ("docker_image", "Python:3.9", "must be lower case"),
    ("docker_image", "a" * 10_000, "at most 512 characters"),
    ("name", None, "must be a string"),
    ("name", "n" * 129, "at most 128 characters"),
    ("name", "a\nb", "must be printable"),
    ("name", "a\x00b", "must be printable"),
    ("name", "\x1b[31m", "must be printable"),
    ("name", "\u202ea", "must be printable"),
    ("name", "\ud800", "valid Unicode"),
    ("command", None, "a string or a list of strings"),
    ("command", 5, "a string or a list of strings"),
    ("command", {"a": "b"}, "a string or a list of strings"),
    ("command", "echo 'a", "a quote that is not closed"),
    ("command", "echo \\", "ends with a backslash"),
    ("command", "echo \x00", "control characters"),
    ("command", "echo \x1b", "control characters"),
    ("command", "echo \ud800", "valid Unicode"),
    ("command", ["", "x"], "empty word"),
    ("command", "''", "empty word"),
    ("command", ["x"] * 4097, "at most 4096 entries"),
    ("command", "x " * 4097, "at most 4096 entries"),
    ("command", ["y" * 100_000] * 3, "at most 262144 bytes in all"),
    ("env", None, "must be a map"),
    ("env", ["A=1"], "must be a map"),
    ("env", "A=1", "must be a map"),
    ("env", {f"E{number}": "" for number in range(1001)}, "at most 1000 entries"),
    ("env", {f"E{number}": "x" * 100_000 for number in range(3)}, "at most 262144 bytes in all"),
    ("cpu_required", 0, "must be at least 0.01"),
    ("cpu_required", -1, "must be at least 0.01"),
    ("cpu_required", 1024.5, "must be at most 1024"),
    ("cpu_required", 1e300, "must be at most 1024"),
    ("cpu_required", float("nan"), "must be a finite number"),
    ("cpu_required", float("inf"), "must be a finite number"),
    ("cpu_required", float("-inf"), "must be a finite number"),
    ("cpu_required", "2", "must be a number"),
    ("cpu_required", True, "must be a number"),
    ("cpu_required", None, "must be a number"),
    ("cpu_required", [1], "must be a number"),
    ("memory_required", 0, "must be at least 6"),
    ("memory_required", -512, "must be at least 6"),
    ("memory_required", 5, "must be at least 6"),
    ("memory_required", 16 * MIB + 1, "must be at most 16777216"),
    ("memory_required", 10**30, "must be at most 16777216"),
    ("memory_required", 512.5, "must be a whole number"),
    ("memory_required", float("nan"), "must be a whole number"),
    ("memory_required", float("inf"), "must be a whole number"),
    ("memory_required", "512", "must be a whole number"),
    ("memory_required", "512m", "must be a whole number"),
    ("memory_required", True, "must be a whole number"),
    ("memory_required", None, "must be a whole number"),
    ("gpu_required", -1, "must be at least 0"),
    ("gpu_required", 65, "must be at most 64"),
    ("gpu_required", 0.5, "must be a whole number: a task has each of its GPUs for itself"),
    ("gpu_required", float("nan"), "must be a whole number"),
    ("gpu_required", "1", "must be a whole number"),
    ("gpu_required", False, "must be a whole number"),
    ("priority", -1, "must be at least 0"),
    ("priority", 101, "must be at most 100"),
    ("priority", 1.5, "must be a whole number"),
    ("priority", "high", "must be a whole number"),
    ("max_retries", -1, "must be at least 0"),
    ("max_retries", 101, "must be at most 100"),
    ("max_retries", None, "must be a whole number"),
    ("timeout_seconds", 0, "must be greater than 0"),
    ("timeout_seconds", -1, "must be greater than 0"),
    ("timeout_seconds", 30 * 86400 + 1, "must be at most 2592000"),
    ("timeout_seconds", float("inf"), "must be a finite number"),
    ("timeout_seconds", float("nan"), "must be a finite number"),
    ("timeout_seconds", "60s", "must be a number"),
    ("labels", None, "must be a map"),
    ("labels", [], "must be a map"),
    ("labels", {f"l{number}": "" for number in range(65)}, "at most 64 entries"),
    ("constraints", "zone=eu", "must be a map"),
    ("constraints", {f"l{number}": "" for number in range(33)}, "at most 32 entries"),
    ("imaeg", "busybox", "is not known"),
    ("privileged", True, "is not known"),
    ("", 1, "is not known"),
]


@pytest.mark.parametrize(
    ("field", "value", "why"), BAD_FIELDS, ids=[f"{field}-{ascii(value)[:30]}" for field, value, _ in BAD_FIELDS]
)
def test_invalid_field_is_refused(tasks: TaskApi, field: str, value: object, why: str) -> None:
    (error,) = refusals(tasks, {"docker_image": "busybox", field: value})
    assert error["field"] == (field or "(body)")
    assert why in error["message"]
    assert len(json.dumps(error)) < 1000


BAD_ENTRIES: list[tuple[str, object, str, str]] = [
    # (field, value, the entry that is refused, what its refusal says)
    ("command", ["echo", 5], "command[1]", "must be a string"),
    ("command", ["x", "y" * 131_072], "command[1]", "at most 131071 bytes"),
    ("command", ["echo", None], "command[1]", "must be a string"),
    ("command", ["echo", "a\x00"], "command[1]", "control characters"),
    ("command", ["echo", "a\x7f"], "command[1]", "control characters"),
    ("env", {"A": 1}, "env.A", "must be a string"),
    ("env", {"A": None}, "env.A", "must be a string"),
    ("env", {"A": "\x00"}, "env.A", "control characters"),
    ("env", {"A": "x" * 131_072}, "env.A", "at most 131071 bytes"),
    ("env", {"": "x"}, "env.", "a name that must be"),
    ("env", {"1A": "x"}, "env.1A", "a name that must be"),
    ("env", {"A B": "x"}, "env.A B", "a name that must be"),
    ("env", {"A=B": "x"}, "env.A=B", "a name that must be"),
    ("env", {"Ä": "x"}, "env.Ä", "a name that must be"),
    ("env", {"A\n": "x"}, "env.A\n", "a name that must be"),
    ("env", {"E" * 256: "x"}, "env." + "E" * 196, "a name that must be"),
    ("env", {"NVIDIA_VISIBLE_DEVICES": "all"}, "env.NVIDIA_VISIBLE_DEVICES", "hands out devices"),
    ("env", {"AMD_VISIBLE_DEVICES": "all"}, "env.AMD_VISIBLE_DEVICES", "hands out devices"),
    ("labels", {"a b": "x"}, "labels.a b", "a name that must be"),
    ("labels", {"l" * 65: "x"}, "labels." + "l" * 65, "a name that must be"),
    ("labels", {"a": 1}, "labels.a", "must be a string"),
    ("labels", {"a": "\n"}, "labels.a", "must be printable"),
    ("labels", {"a": "x" * 257}, "labels.a", "at most 256 characters"),
    ("constraints", {"": "x"}, "constraints.", "a name that must be"),
    ("constraints", {"a": []}, "constraints.a", "must not be empty"),
    ("constraints", {"a": 1}, "constraints.a", "a string or a list of strings"),
    ("constraints", {"a": None}, "constraints.a", "a string or a list of strings"),
    ("constraints", {"a": ["x", 1]}, "constraints.a[1]", "must be a string"),
    ("constraints", {"a": ["x"] * 33}, "constraints.a", "at most 32 entries"),
    ("constraints", {"a": "x" * 257}, "constraints.a[0]", "at most 256 characters"),
]


@pytest.mark.parametrize(
    ("field", "value", "entry", "why"),
    BAD_ENTRIES,
    ids=[f"{field}-{ascii(value)[:30]}" for field, value, _, _ in BAD_ENTRIES],
)
def test_invalid_entry_is_refused(tasks: TaskApi, field: str, value: object, entry: str, why: str) -> None:
    (error,) = refusals(tasks, {"docker_image": "busybox", field: value})
    assert error["field"] == entry
    assert why in error["message"]


def test_all_errors_are_reported_at_once(tasks: TaskApi) -> None:
    body = {"cpu_required": 0, "memory_required": "1", "env": {"A": 1, "B C": "x"}, "priority": 101, "pritority": 1}
    errors = refusals(tasks, body)
    assert [error["field"] for error in errors] == [
        "docker_image", "env.A", "env.B C", "cpu_required", "memory_required", "priority", "pritority",
    ]  # fmt: skip
    assert errors[0] == {"field": "docker_image", "message": "is required"}
    assert errors[3] == {"field": "cpu_required", "message": "must be at least 0.01", "value": 0}
    assert errors[6]["message"] == "is not known; is priority meant?"


def test_errors_of_header_and_body_are_reported_together(tasks: TaskApi) -> None:
    result = tasks.post({"docker_image": ""}, Idempotency_Key="")
    assert [error["field"] for error in result.json["errors"]] == ["Idempotency-Key", "docker_image"]


@pytest.mark.parametrize("body", [[], [{"docker_image": "busybox"}], "busybox", 5, 1.5, None, True])
def test_body_must_be_an_object(tasks: TaskApi, body: object) -> None:
    (error,) = refusals(tasks, body)
    assert (error["field"], error["message"]) == ("(body)", "must be a JSON object")


def test_body_with_too_many_fields_is_not_validated(tasks: TaskApi) -> None:
    (error,) = refusals(tasks, {"docker_image": "busybox", **{f"f{number}": 1 for number in range(1000)}})
    assert "1001 fields" in error["message"]


def test_at_most_a_hundred_errors_are_reported(tasks: TaskApi) -> None:
    assert len(refusals(tasks, {"docker_image": "busybox", "env": {f"E{n}": 1 for n in range(1000)}})) == 100


@pytest.mark.parametrize(
    ("text", "value"),
    [("NaN", "nan"), ("-Infinity", "-inf"), ("1e999", "inf"), ("1" + "0" * 30, 1e30), ("true", True), ("null", None)],
)
def test_refused_value_is_repeated_as_far_as_json_can(tasks: TaskApi, text: str, value: object) -> None:
    result = post_text(tasks, f'{{"docker_image": "busybox", "cpu_required": {text}}}')
    (error,) = result.json["errors"]
    assert error["value"] == value


def test_long_value_is_truncated(tasks: TaskApi) -> None:
    (error,) = refusals(tasks, {"docker_image": "busybox", "priority": "x" * 100_000})
    assert error["value"] == "x" * 200 + "…"


# Secrets


@pytest.mark.parametrize("env", [{"A": "hunter2\x00"}, {"A=hunter": "hunter2"}, {"A": ["hunter2"]}, ["hunter2"]])
def test_no_refusal_repeats_a_value_of_env(tasks: TaskApi, env: object) -> None:
    result = post_text(tasks, json.dumps({"docker_image": "busybox", "env": env}))
    assert result.status_code == 422
    assert "hunter2" not in result.text


def test_values_of_env_are_in_no_answer_and_no_repr(tasks: TaskApi) -> None:
    body = {"docker_image": "busybox", "env": {"TOKEN": "hunter2"}}
    answer = tasks.post(body)
    assert answer.json["env"] == {"TOKEN": None}
    for path in ("/api/tasks", f"/api/tasks/{answer.json['task_id']}"):
        assert "hunter2" not in tasks.client.simulate_get(path).text
    assert "hunter2" not in repr(TaskRequest.model_validate(body))
    spec, _ = parse_request(body, None)
    assert spec.env["TOKEN"] == "hunter2"
    assert "hunter2" not in repr(spec)
    assert "TOKEN" in repr(spec)


# The idempotency key


def test_same_key_and_request_return_the_same_task(tasks: TaskApi) -> None:
    first = tasks.post({"docker_image": "busybox"}, Idempotency_Key="k 1")
    again = tasks.post({"docker_image": "busybox", "priority": 0.0, "command": ""}, Idempotency_Key="k 1")
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json["task_id"] == first.json["task_id"]
    assert again.headers["Location"] == first.headers["Location"]
    assert len(tasks.get("/api/tasks")) == 1
    other_key = tasks.post({"docker_image": "busybox"}, Idempotency_Key="k 2")
    assert other_key.status_code == 201


def test_same_key_with_another_request_is_a_conflict(tasks: TaskApi) -> None:
    tasks.post({"docker_image": "busybox"}, Idempotency_Key="k")
    result = tasks.post({"docker_image": "busybox", "priority": 1}, Idempotency_Key="k")
    assert result.status_code == 409
    assert len(tasks.get("/api/tasks")) == 1


@pytest.mark.parametrize("key", ["", "k" * 129, "\x01", "ä"])
def test_malformed_key_is_refused(tasks: TaskApi, key: str) -> None:
    result = tasks.post({"docker_image": "busybox"}, Idempotency_Key=key)
    assert result.status_code == 422
    assert result.json["errors"][0]["field"] == "Idempotency-Key"


def test_longest_key_is_accepted(tasks: TaskApi) -> None:
    assert tasks.post({"docker_image": "busybox"}, Idempotency_Key="k" * 128).status_code == 201


def test_digest_does_not_depend_on_how_a_request_is_written() -> None:
    def digest(**fields: object) -> str:
        return parse_request({"docker_image": "busybox", **fields}, None)[0].digest()

    assert digest() == digest(cpu_required=1, memory_required=512.0, env={}, timeout_seconds=None)
    assert digest(command="echo 'a b'") == digest(command=["echo", "a b"])
    assert digest(env={"A": "1", "B": "2"}) == digest(env={"B": "2", "A": "1"})
    assert digest(constraints={"a": "x"}) == digest(constraints={"a": ["x"]})
    different = [
        digest(), digest(env={"A": "1"}), digest(env={"A": "2"}), digest(labels={"A": "1"}), digest(name="a"),
        digest(command="a"), digest(priority=1), digest(max_retries=1), digest(constraints={"a": ["x", "y"]}),
    ]  # fmt: skip
    assert len(set(different)) == len(different)


def test_digest_leaves_out_defaults() -> None:
    # Digests are in the store: what is said, and nothing else, may be in them.
    assert task_request("busybox").digest() == hashlib.sha256(b'{"docker_image":"busybox"}').hexdigest()
    assert task_request("busybox", priority=1).digest() == (
        hashlib.sha256(b'{"docker_image":"busybox","priority":1}').hexdigest()
    )


# Whatever comes

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(["busybox", "\ud800", "1e999", "a" * 5000])
)  # fmt: skip
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
FIELDS = st.sampled_from([*TaskRequest.model_fields, "other", "\ud800"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(FIELDS, ANYTHING) | ANYTHING, st.booleans())
def test_any_json_body_is_accepted_or_refused(tasks: TaskApi, body: Any, with_image: bool) -> None:
    if with_image and isinstance(body, dict):
        body = {**body, "docker_image": "busybox"}
    result = post_text(tasks, json.dumps(body))
    assert result.status_code in {201, 422}
    if result.status_code == 422:
        assert result.json["errors"]
        assert len(result.content) < 60_000


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(tasks: TaskApi, body: bytes) -> None:
    result = tasks.client.simulate_post("/api/tasks", body=body, headers={**JSON, "Content-Length": str(len(body))})
    assert result.status_code in {400, 422}


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"docker_image": "busybox", "command": ["x" * 200_000]}),
        json.dumps({"docker_image": "busybox", "env": {"A": "x" * 200_000}, "timeout": "soon"}),
        json.dumps({"docker_image": "UPPER", "memory_required": -1}),
        "{" * 5000,
        '{"docker_image": ',
        "x" * (2 * 2**20),
    ],
    ids=["command", "env", "image", "deep", "broken", "long"],
)
def test_refused_body_is_freed_at_once(tasks: TaskApi, body: str) -> None:
    """A cycle would keep it until the next collection: hundreds of megabytes under a flood of bad requests."""
    frames = frames_left_by(tasks, body, 400, 413, 422)
    assert {"validated", "parse", "read_json", "on_post"}.isdisjoint(frames)


def frames_left_by(tasks: TaskApi, body: str, *statuses: int) -> list[str]:
    """The functions whose frames only a collection would free after a request."""
    post_text(tasks, body)
    gc.collect()
    gc.disable()
    try:
        assert post_text(tasks, body).status_code in statuses
        return [one.f_code.co_name for one in gc.get_objects() if isinstance(one, FrameType) and not is_live(one)]
    finally:
        gc.enable()


def test_body_of_a_task_over_a_quota_is_freed_at_once(tasks: TaskApi) -> None:
    def refuse(request: TaskRequest, *_more: object) -> tuple[Task, bool]:
        raise QuotaExceeded("queued_bytes", f"too much of {request.docker_image}")

    tasks.fake.submit = refuse  # type: ignore[method-assign,assignment]  # a fake is an object of ours
    frames = frames_left_by(tasks, json.dumps({"docker_image": "busybox"}), 429)
    assert {"refuse", "on_post"}.isdisjoint(frames)


def is_live(frame: FrameType) -> bool:
    """Whether the frame is one of the test's own callers."""
    caller: FrameType | None = inspect.currentframe()
    while caller is not None and caller is not frame:
        caller = caller.f_back
    return caller is not None
