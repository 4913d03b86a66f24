"""Invalid input, and a check of the errors for it."""

import math

from hypothesis import strategies as st

from fleetpulse.proto.rules import WORKER_ID_MAX_LENGTH

NOT_NUMBERS = [math.nan, -math.nan, math.inf, -math.inf]

BAD_WORKER_IDS = [
    "", " ", "a b", "a" * (WORKER_ID_MAX_LENGTH + 1), "a" * 10_240,
    "a\n", "\na", "a\x00", "\x1b[31m", "a\x7f", "a\t", "a\r\n",
    'a"', "a'", "`a`", "a/b", "/", "a\\b", "..", ".", "../a", "..%2fa", "a%2f..", ".hidden", "-rf", "_a",
    "a?b", "a#b", "a{b}", "a,b", "a=b", "a;b", "a:b", "a@b", "a*",
    "ä", "名前", "a\u200b", "\u202ea", "\u0660", "\uff41", "a\u0301",
]  # fmt: skip

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
"""Any text that protobuf can carry."""


def assert_safe_to_log(text: str) -> None:
    assert text.isprintable()
    assert text.isascii()
    assert len(text) < 1000
