"""master.console.client: the error for each bad answer"""

import socket
from pathlib import Path

import pytest

from fleetpulse.master.console.client import MasterClient, path_segment
from fleetpulse.master.console.errors import ConsoleError, UnknownId, Unreachable
from tests.master.console.fake_master import Answer, FakeMaster, Request, problem


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (problem(404, "no worker has the id 'x'"), UnknownId, "no worker has the id 'x'"),
        (problem(409, "it has ended"), ConsoleError, "it has ended"),
        (problem(422, "cpu_required must be at least 0.01"), ConsoleError, "cpu_required must be"),
        (problem(503, "the store is away", **{"Retry-After": "5"}), ConsoleError, "try again in 5 seconds"),
        (problem(500, "a bug"), ConsoleError, "its log says more"),
        (problem(401, "who are you"), ConsoleError, "FLEETPULSE_TOKEN"),
        (problem(403, "you may not"), ConsoleError, "FLEETPULSE_TOKEN"),
        (Answer(b"<html>", 404, "text/html"), Unreachable, "is not a FleetPulse master: it answered 404"),
        (Answer(b"<html>", 502, "text/html"), Unreachable, "it answered 502"),
        (Answer(b"<html>", 200, "text/html"), Unreachable, "is not JSON"),
        (Answer([1]), Unreachable, "does not have the shape"),
        (Answer(b"", 302, headers={"Location": "https://sso.example/"}), Unreachable, "https://sso.example/"),
        (Answer(b"{", 404, "application/problem+json"), Unreachable, "it answered 404"),
        (Answer(is_broken=True), Unreachable, "cannot reach"),
    ],
)
def test_each_bad_answer_has_its_error(
    master: FakeMaster, client: MasterClient, answer: Answer, kind: type[ConsoleError], message: str
) -> None:
    master.on("GET", "/x", answer)
    with pytest.raises(ConsoleError, match=message) as caught:
        client.get_dict("/x")
    assert type(caught.value) is kind


def test_error_is_one_safe_line(master: FakeMaster, client: MasterClient) -> None:
    master.on("GET", "/x", problem(409, "evil\x1b]0;title\x07\nsecond line"))
    with pytest.raises(ConsoleError) as caught:
        client.get("/x")
    assert caught.value.message == "evil second line"


def test_refused_connection_was_not_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    client = MasterClient(f"http://127.0.0.1:{port}")
    with pytest.raises(Unreachable, match=r"Connection refused.*fleetpulse up.*FLEETPULSE_URL") as caught:
        client.get("/workers")
    client.close()
    assert caught.value.exit_code == 3
    assert not caught.value.was_sent


def test_request_without_an_answer_was_sent(master: FakeMaster, client: MasterClient) -> None:
    master.on("POST", "/x", Answer(is_broken=True))
    with pytest.raises(Unreachable) as caught:
        client.post("/x")
    assert caught.value.was_sent


def test_token_is_sent_and_netrc_is_ignored(master: FakeMaster, tmp_path: Path) -> None:
    master.get("/x", {})
    tokens = iter(("secret", None))
    client = MasterClient(master.url, lambda: next(tokens))
    for _ in range(2):
        client.get("/x")
    client.close()
    with_token, without = master.requests
    assert with_token.headers["Authorization"] == "Bearer secret"
    assert "Authorization" not in without.headers


def test_items_of_all_pages_are_fetched(master: FakeMaster, client: MasterClient) -> None:
    def page(request: Request) -> Answer:
        if "cursor" in request.query:
            return Answer([{"n": 2}])
        return Answer([{"n": 1}], headers={"Link": '</api/tasks?limit=1&cursor=abc>; rel="next"'})

    master.on("GET", "/api/tasks", page)
    assert list(client.items("/api/tasks", {})) == [{"n": 1}, {"n": 2}]
    assert master.requests[0].query == {"limit": "1000"}
    assert master.requests[-1].query == {"limit": "1", "cursor": "abc"}
    assert list(client.items("/api/tasks", {}, 1)) == [{"n": 1}]
    assert master.requests[-1].query == {"limit": "1"}


def test_now_follows_the_clock_of_the_master(master: FakeMaster, client: MasterClient) -> None:
    master.on("GET", "/x", Answer({}, headers={"Date": "Thu, 01 Jan 2099 00:00:00 GMT"}))
    client.get("/x")
    assert client.now() > 4_000_000_000


@pytest.mark.parametrize("given", ["", ".", "..", "a\nb"])
def test_impossible_ids_are_unknown(given: str) -> None:
    with pytest.raises(UnknownId):
        path_segment(given, "worker")


def test_id_is_quoted_as_one_segment() -> None:
    assert path_segment("a/../b?c", "task") == "a%2F..%2Fb%3Fc"
