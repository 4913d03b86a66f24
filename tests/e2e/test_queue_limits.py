"""A master refuses what is too much for its queue, and its lists stay small whatever the tasks are like."""

import json
from typing import Any

import pytest
import requests

from tests.e2e.masters import Master, started_master
from tests.e2e.processes import FLEETPULSE, Processes
from tests.e2e.test_master import stop

pytestmark = pytest.mark.e2e

BIG = ["echo", *("x" * 100_000 for _ in range(2))]
LARGEST_ENV = {f"NAME_{number:03}": "v" * 200 for number in range(900)}


def submit(master: Master, token: str = "", **fields: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"{master.url}/api/tasks"
    return master.session.post(url, json={"docker_image": "busybox", **fields}, headers=headers, timeout=30)


def problem_of(answer: requests.Response) -> tuple[int, str]:
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json()["limit"] in answer.json()["detail"]
    return answer.status_code, answer.json()["limit"]


def make_token(processes: Processes, name: str) -> str:
    made = processes.run(FLEETPULSE, "token", "create", name, "--role", "submit")
    assert made.code == 0, made.err
    return made.out.strip()


def test_queue_has_limits_for_each_token_and_for_the_master_over_a_restart(processes: Processes) -> None:
    flags = ("--token-queued-tasks", "3", "--max-queued-tasks", "4", "--token-queued-size", "1MiB")
    ci, deploy = make_token(processes, "ci"), make_token(processes, "deploy")
    master = started_master(processes, *flags)
    assert [submit(master, ci).status_code for _ in range(3)] == [201, 201, 201]
    assert problem_of(submit(master, ci)) == (429, "token_queued_tasks")
    assert submit(master, deploy).status_code == 201
    assert problem_of(submit(master, deploy)) == (429, "queued_tasks")
    headers = {"Authorization": f"Bearer {ci}"}
    text = master.get("/metrics", headers=headers).text
    assert 'fleetpulse_http_rejected_total{reason="token_queued_tasks"} 1.0' in text
    stop(master)
    master = started_master(processes, *flags)
    assert problem_of(submit(master, ci)) == (429, "token_queued_tasks")
    assert problem_of(submit(master, deploy)) == (429, "queued_tasks")
    (task, *_) = master.get("/api/tasks?status=queued", headers=headers).json()
    master.session.delete(f"{master.url}/api/tasks/{task['task_id']}", headers=headers, timeout=10)
    assert submit(master, deploy, command=BIG[:2]).status_code == 201
    master.close()


def test_size_of_the_queue_has_a_limit(processes: Processes) -> None:
    master = started_master(processes, "--max-queued-size", "1MiB")
    answers = [submit(master, command=BIG) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [201] * 5 + [429]
    assert problem_of(answers[-1]) == (429, "queued_bytes")
    assert submit(master).status_code == 201
    master.close()


def test_list_of_the_largest_tasks_is_small_and_each_has_all_of_it(processes: Processes) -> None:
    master = started_master(processes)
    labels = {f"label-{number:02}": "l" * 250 for number in range(64)}
    constraints = {f"c-{number:02}": ["v" * 250] * 8 for number in range(32)}
    large: dict[str, Any] = {"command": BIG, "env": LARGEST_ENV, "labels": labels, "constraints": constraints}
    task_id, *_ = [submit(master, **large).json()["task_id"] for _ in range(10)]
    submit(master, command=["echo", "small"], labels={"team": "a"})
    answer = master.get("/api/tasks?limit=1000")
    assert len(answer.content) < 11 * 4096
    small, *listed = answer.json()
    assert (small["command"], small["labels"], small["truncated"]) == (["echo", "small"], {"team": "a"}, [])
    for task in listed:
        assert task["truncated"] == ["command", "env", "labels", "constraints"]
        assert (task["command"], task["env"], task["labels"], task["constraints"]) == ([], {}, {}, {})
    whole = master.json(f"/api/tasks/{task_id}")
    assert (whole["command"], whole["labels"], whole["constraints"]) == (BIG, labels, constraints)
    assert whole["env"] == dict.fromkeys(LARGEST_ENV)
    found = processes.run(FLEETPULSE, "tasks", "--label", f"label-07={'l' * 250}", "--json", FLEETPULSE_URL=master.url)
    assert found.code == 0, found.err
    assert len(json.loads(found.out)) == 10
    master.close()
