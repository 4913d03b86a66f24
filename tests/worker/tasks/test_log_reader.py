"""worker.tasks.log_reader: what comes out depends on what went in alone."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.worker.tasks.log_reader import LogLimiter, truncation_mark

PIECES = st.lists(st.binary(max_size=60), max_size=12)
LIMITS = st.integers(min_value=0, max_value=300)


def kept(pieces: Sequence[bytes], limit: int, skip: int = 0) -> bytes:
    output = LogLimiter(limit, skip)
    return b"".join(output.feed(piece) for piece in pieces) + output.finish()


@given(PIECES, LIMITS)
def test_limiter_keeps_the_beginning_up_to_the_limit(pieces: list[bytes], limit: int) -> None:
    whole = b"".join(pieces)
    if len(whole) <= limit:
        assert kept(pieces, limit) == whole
    else:
        mark = truncation_mark(limit)[:limit]
        assert kept(pieces, limit) == whole[: limit - len(mark)] + mark


@given(PIECES, LIMITS)
def test_limiter_result_does_not_depend_on_the_split(pieces: list[bytes], limit: int) -> None:
    assert kept(pieces, limit) == kept([b"".join(pieces)], limit)


@given(PIECES, LIMITS, st.data())
def test_limiter_skips_bytes_that_are_known(pieces: list[bytes], limit: int, data: st.DataObject) -> None:
    everything = kept(pieces, limit)
    known = data.draw(st.integers(min_value=0, max_value=len(everything)))
    assert kept(pieces, limit, known) == everything[known:]


def test_limiter_holds_nothing_back_far_from_the_limit() -> None:
    output = LogLimiter(1000)
    assert output.feed(b"at once") == b"at once"
    assert not output.is_truncated


def test_truncated_limiter_drops_everything() -> None:
    output = LogLimiter(100)
    output.feed(b"x" * 101)
    assert output.is_truncated
    assert output.feed(b"more") == b""
    assert output.finish() == b""
