"""master.api.middleware"""

import gzip
import itertools
import os
import zlib
from typing import Any, cast

import falcon
import gevent
import pytest
from falcon.testing import create_environ
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.master.api.middleware import (
    MIN_COMPRESSED_BYTES,
    PIECE_BYTES,
    accepts_gzip,
    gzipped,
    joined_pieces,
)
from fleetpulse.master.telemetry.lazy_view import SteadyBytes
from tests.master.fleet import full_heartbeat, settle
from tests.master.web import Web

GZIP = {"Accept-Encoding": "gzip"}


class Body:
    """Answers with a body, in one piece or in a list of them."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        if len(self._pieces) == 1:
            resp.data = self._pieces[0]
        else:
            resp.stream = list(self._pieces)
            resp.content_length = sum(map(len, self._pieces))

    on_head = on_get


# Compression


@pytest.mark.parametrize("pieces", [[b"a" * 5000], [b"a" * 4000, b"", b"b" * 4000]])
def test_long_answer_is_compressed_on_request(web: Web, pieces: list[bytes]) -> None:
    web.app.add_route("/body", Body(*pieces))
    plain = web.client.simulate_get("/body")
    assert plain.content == b"".join(pieces)
    assert "Content-Encoding" not in plain.headers
    packed = web.client.simulate_get("/body", headers=GZIP)
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.content) == plain.content
    assert int(packed.headers["Content-Length"]) == len(packed.content) < len(plain.content)
    assert plain.headers["Vary"] == packed.headers["Vary"] == "Accept-Encoding"
    head = web.client.simulate_head("/body", headers=GZIP)
    assert head.content == b""
    assert dict(head.headers) == dict(packed.headers)


LARGE = os.urandom(48 * 1024) * 2


@given(st.lists(st.sampled_from([b"", b"a", b"line\n" * 100, LARGE, SteadyBytes(LARGE), SteadyBytes(b"steady")])))
def test_any_pieces_come_out_as_they_were_put_in(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    joined = list(joined_pieces(pieces))
    assert b"".join(joined) == whole
    sizes = [len(piece) for piece in joined]
    assert all(size > 0 for size in sizes)
    assert not any(one < PIECE_BYTES and after < PIECE_BYTES for one, after in itertools.pairwise(sizes))
    # zlib reads one member and checks its length and its CRC; it leaves what follows, which must be nothing.
    for _ in range(2):
        reader = zlib.decompressobj(wbits=zlib.MAX_WBITS + 16)
        assert reader.decompress(gzipped(pieces)) == whole
        assert reader.eof
        assert reader.unused_data == b""


def test_steady_piece_is_compressed_once() -> None:
    steady, changing = SteadyBytes(LARGE), bytes(LARGE)
    kept: list[Any] = []
    for _ in range(2):
        gzipped([b"small", changing, steady])
        kept.append(steady.derived)
    assert kept[0] is kept[1] is not None


def test_small_pieces_are_sent_together_and_large_ones_as_they_are(web: Web) -> None:
    small = [b"%d\n" % number for number in range(80)]
    assert list(joined_pieces(small)) == [b"".join(small)]
    large = b"x" * PIECE_BYTES
    (before, between, after) = joined_pieces([*small, large, *small])
    assert (before, after) == (b"".join(small), b"".join(small))
    assert between is large
    web.fleet.manager.process_heartbeat(full_heartbeat("rack-7"))
    settle()
    for path in ("/metrics", "/api/workers", "/telemetry", "/api/tasks"):
        answer: Any = cast("Any", web.app)(create_environ(path), lambda *_: None)
        assert len([piece for piece in answer if piece]) == 1, path


@pytest.mark.parametrize("length", [0, 1, MIN_COMPRESSED_BYTES - 1])
def test_short_answer_is_not_compressed(web: Web, length: int) -> None:
    web.app.add_route("/body", Body(b"a" * length))
    result = web.client.simulate_get("/body", headers=GZIP)
    assert result.content == b"a" * length
    assert "Content-Encoding" not in result.headers


def test_compression_threshold(web: Web) -> None:
    web.app.add_route("/body", Body(b"a" * MIN_COMPRESSED_BYTES))
    assert web.client.simulate_get("/body", headers=GZIP).headers["Content-Encoding"] == "gzip"


@pytest.mark.parametrize("path", ["/telemetry", "/api/workers", "/metrics"])
def test_answer_in_pieces_is_compressed(web: Web, path: str) -> None:
    for number in range(5):
        web.fleet.manager.process_heartbeat(full_heartbeat(f"rack-{number}"))
    settle()
    result = web.client.simulate_get(path, headers=GZIP)
    assert b"rack-4" in gzip.decompress(result.content)
    assert "Accept-Encoding" in result.headers["Vary"]


def test_304_is_not_compressed(web: Web) -> None:
    for number in range(5):
        web.fleet.beat(f"rack-{number}")
    etag = web.client.simulate_get("/telemetry", headers=GZIP).headers["ETag"]
    result = web.client.simulate_get("/telemetry", headers={**GZIP, "If-None-Match": etag})
    assert (result.status_code, result.content) == (304, b"")
    assert "Content-Encoding" not in result.headers


def test_compression_does_not_block_the_hub(web: Web) -> None:
    turns = []

    def other() -> None:
        while True:
            turns.append(1)
            gevent.sleep(0.001)

    web.app.add_route("/body", Body(os.urandom(32_000_000)))
    greenlet = gevent.spawn(other)
    try:
        web.client.simulate_get("/body", headers=GZIP)
    finally:
        greenlet.kill()
    assert len(turns) > 5


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("deflate, gzip, br", True),
        ("gzip;q=1.0, identity; q=0.5", True),
        ("gzip; q=0.001", True),
        ("*", True),
        ("br, *;q=0.1", True),
        ("", False),
        ("identity", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("gzip;q=0, *", False),
        ("*;q=0", False),
        ("gzip;q=", False),
        ("gzip;q=high", False),
        ("gzip;q=nan", False),
        (",,;;", False),
    ],
)
def test_accept_encoding_is_parsed(header: str, expected: bool) -> None:
    assert accepts_gzip(header) is expected


# Observation


def test_answers_are_counted_and_timed_by_route(web: Web) -> None:
    web.fleet.beat("rack-7")
    for path in ("/telemetry/rack-7", "/telemetry/stranger", "/telemetry/other", "/telemetry"):
        web.client.simulate_get(path)
    web.client.simulate_post("/telemetry")
    route = "/telemetry/{worker_id}"
    assert web.fleet.metric("http_requests_total", route=route, method="GET", status="200") == 1
    assert web.fleet.metric("http_requests_total", route=route, method="GET", status="404") == 2
    assert web.fleet.metric("http_requests_total", route="/telemetry", method="POST", status="405") == 1
    assert web.fleet.metric("http_request_duration_seconds_count", route=route) == 3
    assert web.fleet.metric("http_request_duration_seconds_sum", route=route) is not None


@pytest.mark.filterwarnings("ignore:Unknown REQUEST_METHOD")  # from falcon's test client
def test_random_paths_and_methods_share_one_series(web: Web) -> None:
    for number in range(50):
        web.client.simulate_get(f"/admin/{number}")
        web.client.simulate_request(f"BREW{number}", "/telemetry")
    routes = {
        (sample.labels["route"], sample.labels["method"])
        for family in web.fleet.instruments.registry.collect()
        for sample in family.samples
        if sample.name == "fleetpulse_http_requests_total"
    }
    assert routes == {("(none)", "GET"), ("/telemetry", "(other)")}


# Fairness


def test_pipelined_request_yields_to_other_connections(web: Web) -> None:
    turns = []
    web.client.simulate_get("/health")
    greenlet = gevent.spawn(lambda: turns.append(1))
    web.client.simulate_get("/health")
    assert turns == [1]
    greenlet.join()


def test_request_after_a_wait_does_not_yield(web: Web) -> None:
    turns = []
    web.client.simulate_get("/health")
    gevent.sleep(0.001)
    greenlet = gevent.spawn(lambda: turns.append(1))
    web.client.simulate_get("/health")
    assert turns == []
    greenlet.join()


def test_joined_pieces_are_made_one_by_one() -> None:
    parts = [b"x" * 1000] * 1000
    taken = joined_pieces(parts)
    assert len(next(taken)) < 2 * PIECE_BYTES
    parts[-1] = b"end"
    assert b"".join(taken).endswith(b"xend")
