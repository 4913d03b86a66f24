"""master.api.log_text"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.master.api.log_text import decoded, last_lines, torn_bytes, whole_characters


@given(st.text(), st.data())
def test_a_text_is_cut_between_characters_wherever_it_ends(text: str, data: st.DataObject) -> None:
    log = text.encode()
    cut = data.draw(st.integers(0, len(log)))
    kept = whole_characters(log[:cut])
    assert cut - kept <= 3
    assert decoded(log[:kept]) + decoded(log[kept:]) == text
    torn = torn_bytes(log[cut:])
    assert decoded(log[: cut + torn]) + decoded(log[cut + torn :]) == text


@given(st.binary())
def test_any_bytes_are_cut_somewhere(data: bytes) -> None:
    assert 0 <= len(data) - whole_characters(data) <= 3
    assert 0 <= torn_bytes(data) <= 3


@pytest.mark.parametrize("data", [b"", b"a", "é".encode(), "€".encode(), "😀".encode(), b"\x80", b"\x80" * 9])
def test_what_is_whole_is_kept(data: bytes) -> None:
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
def test_the_last_lines(data: bytes, lines: int, expected: bytes) -> None:
    assert data[last_lines(data, lines) :] == expected
