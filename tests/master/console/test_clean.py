"""master.console.clean: nothing that a fleet says may do anything to a terminal"""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.master.console.clean import EscapeFilter, one_line

HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def filtered(*pieces: str) -> str:
    escape_filter = EscapeFilter()
    return "".join([*(escape_filter.feed(piece) for piece in pieces), escape_filter.end()])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]52;c;ZXZpbA==\x1b\\after", "after"),
        ("\x9b31mred", "red"),
        ("a\x1bcb", "ab"),
        ("bell\x07", "bell"),
        ("50%\r100%\r\n", "50%\n100%\n"),
        ("tab\there", "tab\there"),
        ("\u202eevil", "\ufffdevil"),
        ("grüße 🙂", "grüße 🙂"),
        ("\x1b]never ends", "]never ends"),
        ("\x1b[", "["),
    ],
)
def test_sequences_are_taken_out_of_a_log(text: str, shown: str) -> None:
    assert filtered(text) == shown


PIECES = st.lists(st.text(st.sampled_from("\x1b[]0;31m\x07\\\r\n\x9b\x9dPcab \u202e"), max_size=6), max_size=8)


@given(PIECES)
def test_nothing_harmful_comes_through_however_it_is_cut(pieces: list[str]) -> None:
    assert not HARMFUL.search(filtered(*pieces))


@given(PIECES)
def test_where_a_log_is_cut_makes_no_difference_to_what_ends(pieces: list[str]) -> None:
    whole = "".join(pieces) + "\x1b\\\x07\nend"
    assert filtered(*pieces, "\x1b\\\x07\nend").endswith("\nend")
    assert filtered(whole).endswith("\nend")


def test_a_sequence_that_comes_in_pieces_is_one() -> None:
    assert filtered("a\x1b", "[3", "1mb", "\r", "\nc") == "ab\nc"


def test_a_sequence_without_end_does_not_swallow_the_log() -> None:
    assert len(filtered("\x1b]" + "x" * 10_000)) >= 10_000


def test_one_line_stays_one_line() -> None:
    assert one_line("a\nb\x1b[2Jc\td\u202ee") == "a bc d\ufffde"
