"""master.edge.door"""

import select
import socket
from collections.abc import Iterator

import gevent.socket
import pytest
from gunicorn.http.errors import InvalidHeader
from prometheus_client import CollectorRegistry

from fleetpulse.master.audit.entry import AuditEntry, AuditOutcome
from fleetpulse.master.config import Limits
from fleetpulse.master.edge.connection import Connection
from fleetpulse.master.edge.door import ConnectionLimiter
from fleetpulse.master.edge.refusals import CLIENT_FULL, FULL, TOO_OFTEN, refusal_of
from fleetpulse.master.instruments import HttpInstruments

FEW = Limits(connections=4, client_connections=2, client_requests_per_second=1)


class Entrance:
    """A door, and sockets for those who come."""

    def __init__(self, limits: Limits) -> None:
        self.registry = CollectorRegistry()
        self.recorded: list[AuditEntry] = []
        self.door = ConnectionLimiter(limits, HttpInstruments(self.registry), 60.0, self.recorded.append)
        self.sockets: list[socket.socket] = []

    def comes(self, address: str) -> Connection:
        """One whose other end stays open."""
        ours, theirs = gevent.socket.socketpair()
        self.sockets += [ours, theirs]
        return self.door.connection(ours, address)

    def enters(self, address: str, *, waits: bool = False) -> Connection:
        connection = self.comes(address)
        assert self.door.admit(connection) is None
        if waits:
            self.door.waits(connection)
        return connection

    def open(self) -> float | None:
        return self.registry.get_sample_value("fleetpulse_http_connections")

    def rejected(self, reason: str) -> float | None:
        return self.registry.get_sample_value("fleetpulse_http_rejected_total", {"reason": reason})


@pytest.fixture
def entrance() -> Iterator[Entrance]:
    entrance = Entrance(FEW)
    yield entrance
    for each in entrance.sockets:
        each.close()


def refused(client: str, action: str, status: str, detail: str, target: str = "") -> AuditEntry:
    return AuditEntry("anonymous", None, "rest", client, action, target, AuditOutcome.REFUSED, status, detail)


def is_cut(connection: Connection) -> bool:
    # Nothing is ever sent, so what there is to read is the end.
    return bool(select.select([connection.fileno()], [], [], 0.0)[0])


def test_when_all_are_busy_nobody_else_is_admitted(entrance: Entrance) -> None:
    inside = [entrance.enters(f"203.0.113.{number}") for number in range(4)]
    assert entrance.door.admit(entrance.comes("203.0.113.9")) is FULL
    assert entrance.open() == 4.0
    assert entrance.rejected("connections") == 1.0
    assert entrance.recorded == [
        refused("203.0.113.9", "connect", "503", "connections: the master has as many connections as it takes")
    ]
    entrance.door.leave(inside[0])
    entrance.door.leave(inside[0])
    assert entrance.open() == 3.0
    entrance.enters("203.0.113.9")


def test_the_one_that_has_waited_longest_makes_room(entrance: Entrance) -> None:
    busy = entrance.enters("203.0.113.1")
    first, second, third = (entrance.enters(f"203.0.113.{number}", waits=True) for number in (2, 3, 4))
    entrance.door.is_served(first)
    entrance.door.waits(first)
    entrance.enters("203.0.113.5")
    assert [is_cut(each) for each in (busy, first, second, third)] == [False, False, True, False]
    assert entrance.open() == 4.0
    assert entrance.rejected("idle") == 1.0
    assert entrance.recorded == []
    # What becomes of the one that was cut is of no interest any more.
    entrance.door.is_served(second)
    entrance.door.waits(second)
    entrance.door.leave(second)
    assert entrance.open() == 4.0


def test_of_one_client_its_own_make_room(entrance: Entrance) -> None:
    other = entrance.enters("203.0.113.1", waits=True)
    first = entrance.enters("203.0.113.2")
    second = entrance.enters("203.0.113.2", waits=True)
    entrance.enters("203.0.113.2")
    assert [is_cut(each) for each in (other, first, second)] == [False, False, True]
    assert entrance.door.admit(entrance.comes("203.0.113.2")) is CLIENT_FULL
    assert entrance.rejected("client_connections") == 1.0
    assert [one.detail.partition(":")[0] for one in entrance.recorded] == ["client_connections"]
    entrance.door.leave(first)
    entrance.enters("203.0.113.2")


def test_a_client_whose_only_connection_makes_room_for_itself() -> None:
    entrance = Entrance(Limits(connections=1, client_connections=1))
    first = entrance.enters("203.0.113.2", waits=True)
    second = entrance.enters("203.0.113.2")
    assert is_cut(first)
    entrance.door.leave(second)
    assert entrance.open() == 0.0
    for each in entrance.sockets:
        each.close()


def test_clients_of_this_machine_are_not_counted_one_by_one(entrance: Entrance) -> None:
    inside = [entrance.enters("127.0.0.1") for _ in range(4)]
    assert not any(entrance.door.refuses(inside[0], "/") for _ in range(100))
    assert entrance.door.admit(entrance.comes("127.0.0.1")) is FULL


def test_who_asks_too_often_is_refused(entrance: Entrance) -> None:
    eager, other = entrance.enters("203.0.113.1"), entrance.enters("203.0.113.2")
    assert [entrance.door.refuses(eager, "/health") for _ in range(4)] == [None, None, None, TOO_OFTEN]
    assert entrance.door.refuses(other, "/") is None
    assert entrance.rejected("client_requests") == 1.0
    told = "client_requests: this client asks too often"
    assert entrance.recorded == [refused("203.0.113.1", "request", "429", told, "/health")]


def test_a_connection_counts_as_its_first_request(entrance: Entrance) -> None:
    assert [entrance.door.turns_away("203.0.113.1") for _ in range(3)] == [None, None, TOO_OFTEN]
    assert [(one.client, one.action, one.status) for one in entrance.recorded] == [("203.0.113.1", "connect", "429")]
    first = entrance.enters("203.0.113.1")
    assert [entrance.door.refuses(first, "/") for _ in range(2)] == [None, TOO_OFTEN]


def test_what_came_is_not_recorded_word_for_word(entrance: Entrance) -> None:
    refusal = refusal_of(InvalidHeader("Authorization Bearer hunter2"))
    assert "hunter2" in refusal.detail
    entrance.door.reject(refusal, "203.0.113.1", "request")
    entrance.door.reject(refusal_of(ZeroDivisionError()), "203.0.113.1", "request")
    assert entrance.recorded == [refused("203.0.113.1", "request", "400", "malformed: InvalidHeader")]


def test_without_a_rate_nobody_asks_too_often() -> None:
    entrance = Entrance(Limits(client_requests_per_second=0))
    eager = entrance.enters("203.0.113.1")
    assert not any(entrance.door.refuses(eager, "/") for _ in range(10_000))
    assert not any(entrance.door.turns_away("203.0.113.1") for _ in range(10_000))
    for each in entrance.sockets:
        each.close()
