"""master.console.formatting: values with units, and text that is safe for a terminal"""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.master.console import formatting as fmt
from fleetpulse.master.console.formatting import EscapeFilter, one_line

HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def filtered(*chunks: str) -> str:
    escape_filter = EscapeFilter()
    return "".join([*(escape_filter.feed(chunk) for chunk in chunks), escape_filter.end()])


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
def test_escape_sequences_are_removed_from_logs(text: str, shown: str) -> None:
    assert filtered(text) == shown


CHUNKS = st.lists(st.text(st.sampled_from("\x1b[]0;31m\x07\\\r\n\x9b\x9dPcab \u202e"), max_size=6), max_size=8)


@given(CHUNKS)
def test_chunks_of_any_size_let_no_control_character_through(chunks: list[str]) -> None:
    assert not HARMFUL.search(filtered(*chunks))


@given(CHUNKS)
def test_text_after_a_sequence_is_kept_however_the_log_is_cut(chunks: list[str]) -> None:
    whole = "".join(chunks) + "\x1b\\\x07\nend"
    assert filtered(*chunks, "\x1b\\\x07\nend").endswith("\nend")
    assert filtered(whole).endswith("\nend")


def test_sequence_split_over_chunks_is_removed() -> None:
    assert filtered("a\x1b", "[3", "1mb", "\r", "\nc") == "ab\nc"


def test_sequence_without_an_end_is_shown_as_text() -> None:
    assert len(filtered("\x1b]" + "x" * 10_000)) >= 10_000


def test_one_line_removes_line_breaks_and_sequences() -> None:
    assert one_line("a\nb\x1b[2Jc\td\u202ee") == "a bc d\ufffde"


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (fmt.percent(12.34), "12.3%"),
        (fmt.percent(0), "0.0%"),
        (fmt.percent(None), "-"),
        (fmt.size(0), "0 B"),
        (fmt.size(1536), "1.5 KiB"),
        (fmt.size(500 * 2**30), "500 GiB"),
        (fmt.size(None), "-"),
        (fmt.number(1_234_567), "1234567"),
        (fmt.number(38.7136), "38.71"),
        (fmt.number(2.0), "2"),
        (fmt.number(None), "-"),
        (fmt.duration(59), "59s"),
        (fmt.duration(150), "2m"),
        (fmt.duration(90_000), "25h"),
        (fmt.duration(200_000), "2d"),
        (fmt.age(1000.0, 990.0), "0s"),
        (fmt.local_time(None), "-"),
        (fmt.local_time(1e30, "%Y"), "9999"),
        (fmt.labels({"zone": "a", "gpu": ["x", "y"]}), "zone=a,gpu=x|y"),
        (fmt.labels({}), "-"),
    ],
)
def test_values_are_shown_with_units(shown: str, text: str) -> None:
    assert shown == text
