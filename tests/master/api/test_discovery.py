"""master.api.discovery"""

from collections.abc import Iterator
from typing import Any

import pytest

from fleetpulse.master.api.discovery import may_be_scraped
from fleetpulse.master.telemetry.records import Registration
from fleetpulse.proto.rules import is_worker_id
from tests.master.web import Web, running_web


@pytest.fixture
def web() -> Iterator[Web]:
    with running_web() as web:
        yield web


def register(web: Web, worker_id: str, hostname: str = "", **labels: str) -> None:
    registration = Registration(
        "first", hostname, "1.2.3", labels={name.replace("__", "/"): v for name, v in labels.items()}
    )
    web.fleet.manager.register_worker(worker_id, registration)


SPECIAL = (
    "localhost", "LOCALHOST", "a.localhost", "127.0.0.1", "127.1", "2130706433", "0x7f000001", "169.254.169.254", "0",
    "0.0.0.0", "metadata.google.internal", "224.0.0.1",
)  # fmt: skip


@pytest.mark.parametrize("address", SPECIAL)
def test_worker_cannot_name_an_address_that_every_machine_has(address: str, web: Web) -> None:
    register(web, "rack-7", address)
    if address.isascii() and is_worker_id(address):
        register(web, address)
    register(web, "rack-8", "rack-8")
    assert targets(web) == ["rack-8:9100"]


@pytest.mark.parametrize(
    ("address", "peer_host", "expected"),
    [
        ("localhost", "127.0.0.1", True),
        ("127.0.0.1", "::1", True),
        ("localhost", "192.0.2.7", False),
        ("169.254.169.254", "127.0.0.1", False),
        ("169.254.7.7", "169.254.7.7", True),
        ("192.0.2.9", "192.0.2.7", True),
        ("rack-7", "", True),
    ],
)
def test_worker_that_connected_from_there_may_name_it(address: str, peer_host: str, expected: bool) -> None:
    assert may_be_scraped(address, peer_host) is expected


def targets(web: Web, query: str = "port=9100") -> list[str]:
    return [target for group in web.json(f"/sd/targets?{query}") for target in group["targets"]]


def test_worker_is_a_target_at_its_hostname_and_the_requested_port(web: Web) -> None:
    register(web, "rack-7", "rack-7.example.com", zone="eu", team__name="vision")
    assert web.json("/sd/targets?port=9400") == [
        {
            "targets": ["rack-7.example.com:9400"],
            "labels": {
                "worker_id": "rack-7",
                "hostname": "rack-7.example.com",
                "__meta_fleetpulse_label_zone": "eu",
                "__meta_fleetpulse_label_team_name": "vision",
            },
        }
    ]


def test_no_workers_give_an_empty_list(web: Web) -> None:
    result = web.client.simulate_get("/sd/targets?port=9100")
    assert (result.status_code, result.json, result.headers["Content-Type"]) == (200, [], "application/json")
    head = web.client.simulate_head("/sd/targets?port=9100")
    assert (head.status_code, head.content) == (200, b"")


def test_inactive_worker_is_no_target(web: Web) -> None:
    register(web, "rack-7", "rack-7.example.com")
    web.fleet.pass_time(31.0)
    assert targets(web) == []
    register(web, "rack-7", "rack-7.example.com")
    assert targets(web) == ["rack-7.example.com:9100"]


@pytest.mark.parametrize("hostname", ["", "two words", "a/b", "x:1", 'quo"te', "-dash", "dot.", "ünïcode"])
def test_worker_id_is_the_address_without_a_usable_hostname(web: Web, hostname: str) -> None:
    register(web, "rack-7", hostname)
    assert targets(web) == ["rack-7:9100"]


def test_targets_must_have_every_requested_label(web: Web) -> None:
    register(web, "a", "a", node_exporter="true", zone="eu")
    register(web, "b", "b", node_exporter="true", zone="us")
    register(web, "c", "c", zone="eu")
    assert targets(web, "port=1&label=node_exporter=true") == ["a:1", "b:1"]
    assert targets(web, "port=1&label=node_exporter=true&label=zone=eu") == ["a:1"]
    assert targets(web, "port=1&label=zone=") == []
    assert targets(web, "port=65535") == ["a:65535", "b:65535", "c:65535"]


def test_label_values_may_have_escaped_characters(web: Web) -> None:
    register(web, "a", "a", rule="x=y&z,w")
    assert targets(web, "port=1&label=rule=x%3Dy%26z%2Cw") == ["a:1"]


@pytest.mark.parametrize(
    ("query", "field", "message"),
    [
        ("", "port", "is required"),
        ("port=0", "port", "must be at least 1"),
        ("port=65536", "port", "must be at most 65535"),
        ("port=http", "port", "must be a whole number"),
        ("port=1&port=2", "port", "must be given once"),
        ("port=1&label=zone", "label[0]", "must be NAME=VALUE"),
        ("port=1&label==eu", "label[0]", "must be NAME=VALUE"),
        ("port=1&" + "&".join(["label=a=b"] * 17), "label", "must have at most 16 entries"),
        ("port=1&lable=a=b", "lable", "is label meant?"),
    ],
)
def test_invalid_query_is_a_problem(web: Web, query: str, field: str, message: str) -> None:
    result = web.client.simulate_get("/sd/targets", query_string=query)
    assert (result.status_code, result.headers["Content-Type"]) == (422, "application/problem+json")
    problem: Any = result.json
    assert [error["field"] for error in problem["errors"]] == [field]
    assert message in problem["errors"][0]["message"]


def test_large_fleet_lets_other_greenlets_run(web: Web) -> None:
    for number in range(600):
        register(web, f"w{number}", f"w{number}")
    assert len(targets(web)) == 600
