"""master.audit.entry"""

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from fleetpulse.master.audit.entry import MAX_CHARACTERS, line_of, needle_of, record_of
from tests.master.audit.given import entry, recorded

HOSTILE = [
    'x","outcome":"ok","actor":"root',
    "a\nb\r\n{}",
    "\x1b[2J\x1b]0;title\x07\x9b31m",
    "\u202egnp.exe\u2028\u2029",
    "\x00\x7f\x85",
    "\udcff\ud800",
    "\N{PILE OF POO}" * 300,
    "\\u000a\\",
]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
@pytest.mark.parametrize("field", ["action", "actor", "client", "detail", "target"])
def test_entry_is_one_line_of_printable_ascii(field: str, text: str) -> None:
    line = line_of(1.5, entry(**{field: text}))
    assert line.endswith(b"\n")
    assert set(line[:-1].decode("ascii")) <= set(string.printable) - set("\t\n\r\x0b\x0c")
    read = record_of(line)
    assert read is not None
    assert structs.replace(read, **{field: ""}) == recorded(1.5, **{field: ""})
    if len(text) <= MAX_CHARACTERS and text.isascii():
        assert getattr(read, field) == text


@given(st.text(max_size=2 * MAX_CHARACTERS))
def test_needle_finds_a_value(text: str) -> None:
    assert needle_of("actor", text) in line_of(0.0, entry(actor=text))


def test_needle_of_one_field_does_not_match_another() -> None:
    line = line_of(0.0, entry(detail='"actor":"root",', target='","actor":"root","'))
    assert needle_of("actor", "root") not in line


def test_long_text_is_cut() -> None:
    read = record_of(line_of(0.0, entry(target="a" * 10_000)))
    assert read is not None
    assert read.target == "a" * MAX_CHARACTERS + "…"
    longest = dict.fromkeys(("actor", "client", "action", "target", "status", "detail"), "\N{PILE OF POO}" * 9_999)
    assert len(line_of(0.0, entry(**longest))) < 30_000


def test_file_of_an_older_master_is_read() -> None:
    for old, new in {"rest": "http", "rpc": "grpc", "page": "page", "cli": "cli"}.items():
        line = line_of(1.5, entry(source=old, target='"door":"rest",')).replace(b'"source":', b'"door":')
        assert record_of(line) == recorded(1.5, source=new, target='"door":"rest",')


WHOLE = json.loads(line_of(1.0, entry()))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        line_of(1.0, entry())[:-20],
        b"[]",
        b"null",
        b"\xff\xfe",
        json.dumps({**WHOLE, "time": "now"}).encode(),
        json.dumps({**WHOLE, "actor": None}).encode(),
        json.dumps({name: value for name, value in WHOLE.items() if name != "status"}).encode(),
    ],
)
def test_invalid_line_has_no_fields(line: bytes) -> None:
    assert record_of(line) is None


def test_unknown_fields_are_left_out() -> None:
    assert record_of(json.dumps({**WHOLE, "more": 1}).encode()) == recorded(1.0)
