"""worker.tasks.logs: what comes out depends on what went in alone."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.worker.tasks.logs import CappedOutput, cut_mark

PIECES = st.lists(st.binary(max_size=60), max_size=12)
LIMITS = st.integers(min_value=0, max_value=300)


def kept(pieces: Sequence[bytes], limit: int, skip: int = 0) -> bytes:
    output = CappedOutput(limit, skip)
    return b"".join(output.feed(piece) for piece in pieces) + output.finish()


@given(PIECES, LIMITS)
def test_it_keeps_the_beginning_up_to_the_limit(pieces: list[bytes], limit: int) -> None:
    whole = b"".join(pieces)
    if len(whole) <= limit:
        assert kept(pieces, limit) == whole
    else:
        mark = cut_mark(limit)[:limit]
        assert kept(pieces, limit) == whole[: limit - len(mark)] + mark


@given(PIECES, LIMITS)
def test_how_it_was_divided_does_not_matter(pieces: list[bytes], limit: int) -> None:
    assert kept(pieces, limit) == kept([b"".join(pieces)], limit)


@given(PIECES, LIMITS, st.data())
def test_who_reads_anew_goes_on_where_it_was(pieces: list[bytes], limit: int, data: st.DataObject) -> None:
    everything = kept(pieces, limit)
    known = data.draw(st.integers(min_value=0, max_value=len(everything)))
    assert kept(pieces, limit, known) == everything[known:]


def test_nothing_is_held_back_far_from_the_limit() -> None:
    output = CappedOutput(1000)
    assert output.feed(b"at once") == b"at once"
    assert not output.is_cut


def test_a_cut_says_that_more_is_for_nothing() -> None:
    output = CappedOutput(100)
    output.feed(b"x" * 101)
    assert output.is_cut
    assert output.feed(b"more") == b""
    assert output.finish() == b""
