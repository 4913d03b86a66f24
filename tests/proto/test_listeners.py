"""proto.listeners"""

import os
import socket
from pathlib import Path

import pytest

from fleetpulse.proto.listeners import ForeignListener, check_listener, is_loopback, users_listening

OTHER = 4711

# As a kernel wrote it: port 8080 with a listener, a client of it, and a connection to port 8080 elsewhere.
TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  4711        0 119 1
   1: 0100007F:1F90 0100007F:8CC0 01 00000000:00000000 00:00000000 00000000     5        0 120 1
   2: 0100007F:8CC0 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     6        0 121 3
"""


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::")])
def test_users_listening_finds_this_process(family: socket.AddressFamily, host: str) -> None:
    with socket.create_server((host, 0), family=family) as server:
        port = server.getsockname()[1]
        assert users_listening(port) == {os.geteuid()}
    assert users_listening(port) == set()


def test_users_listening_reads_only_listening_sockets(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    table.write_text(TABLE)
    assert users_listening(8080, [table, tmp_path / "none"]) == {OTHER}
    assert users_listening(0x8CC0, [table]) == set()


def test_only_root_and_this_user_and_the_named_one_may_listen() -> None:
    check_listener(8080, "", lambda _port: frozenset({0, os.geteuid()}))
    check_listener(8080, "", lambda _port: frozenset())
    check_listener(8080, str(OTHER), lambda _port: frozenset({OTHER}))
    check_listener(8080, "nobody", lambda _port: frozenset({65534}))
    with pytest.raises(ForeignListener, match="FLEETPULSE_MASTER_USER=4711"):
        check_listener(8080, "nobody", lambda _port: frozenset({65534, OTHER}))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("rack-1", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
