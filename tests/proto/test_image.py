"""proto.image"""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.proto.image import IMAGE_PATTERN, MAX_REPOSITORY_LENGTH, parse_image

SHA = "sha256:" + "0123456789abcdef" * 4

GOOD = [
    "busybox", "busybox:1.37", "python:3.9", "library/busybox", "a/b/c/d:tag", "busybox:latest", "busybox:_x.y-z",
    "busybox:" + "t" * 128, f"busybox@{SHA}", f"busybox:1.37@{SHA}", "busybox@sha512:" + "a" * 128,
    "registry.example.com/team/app:1.0", "registry.example.com:5000/app", "localhost/app", "localhost:5000/app:1",
    "10.0.0.1:5000/app", "[2001:db8::1]:5000/app:1", "[::1]/app", f"registry.example.com:5000/team/app:1.0@{SHA}",
    "ghcr.io/owner/some_image", "a__b", "a--b", "a-b_c.d", "1/2", "HOST/app", "a" * 255,
]  # fmt: skip

BAD = [
    ("", "empty"),
    (" ", "spaces"),
    ("busy box", "spaces"),
    ("busybox\n", "printable"),
    ("busybox\x00", "printable"),
    ("büsybox", "ASCII"),
    ("https://hub.docker.com/r/library/busybox", "not a URL"),
    ("Busybox", "lower case"),
    ("team/Busybox", "lower case"),
    ("registry.example.com/Team/app", "lower case"),
    ("busybox:", "tag"),
    ("busybox:.x", "tag"),
    ("busybox:-x", "tag"),
    ("busybox:a b", "spaces"),
    ("busybox:1:2", "tag"),
    ("busybox:" + "t" * 129, "tag"),
    ("busybox@", "digest"),
    ("busybox@sha256", "digest"),
    ("busybox@sha256:abc", "digest"),
    ("busybox@md5:" + "a" * 32, "digest"),
    ("busybox@" + SHA.upper(), "digest"),
    (f"busybox@{SHA}@{SHA}", "digest"),
    (f"@{SHA}", "name is missing"),
    (":1.0", "name is missing"),
    ("/", "name is missing"),
    ("/busybox", "'/' too many"),
    ("busybox/", "'/' too many"),
    ("a//b", "'/' too many"),
    ("a/../b", "in its name"),
    ("-a", "lower-case letters"),
    ("a-", "lower-case letters"),
    ("a___b", "lower-case letters"),
    ("a..b", "lower-case letters"),
    ("a*b", "lower-case letters"),
    ("a$b/c", "lower-case letters"),
    ("registry.example.com:port/app", "port"),
    ("registry.example.com:0/app", "port"),
    ("registry.example.com:65536/app", "port"),
    ("registry.example.com:/app", "port"),
    ("-registry.example.com/app", "no host name"),
    ("registry..com/app", "no host name"),
    ("a" * 256, "255"),
    ("a/" * 300 + "a", "512"),
    ("0123456789abcdef" * 4, "id of an image"),
]


@pytest.mark.parametrize("reference", GOOD)
def test_well_formed_references_are_parsed(reference: str) -> None:
    parse_image(reference)
    assert re.fullmatch(IMAGE_PATTERN, reference)


@pytest.mark.parametrize(("reference", "why"), BAD)
def test_malformed_references_are_refused_with_a_reason(reference: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_image(reference)


@given(st.text(st.sampled_from("aA0./:@-_[]\x00ä "), max_size=40) | st.text(max_size=600))
def test_any_text_is_parsed_or_refused_with_a_reason(reference: str) -> None:
    problem = refusal_of(reference)
    assert len(problem) < 1000
    assert problem or (reference.isascii() and reference.isprintable() and " " not in reference)


def refusal_of(reference: str) -> str:
    try:
        parse_image(reference)
    except ValueError as error:
        return str(error)
    return ""


@given(st.from_regex(IMAGE_PATTERN, fullmatch=True).filter(lambda image: len(image) <= MAX_REPOSITORY_LENGTH))
def test_references_that_match_the_schema_are_parsed(image: str) -> None:
    parse_image(image)
