"""proto.join: what both ends agree on"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.proto.join import JoinToken, new_join_token, parse_join_token, worker_id_of, worker_uri


@given(st.binary(min_size=32, max_size=32))
def test_token_is_parsed_as_it_was_made(fingerprint: bytes) -> None:
    token = new_join_token(fingerprint)
    assert parse_join_token(f" {token.text()}\n") == token
    assert token.text().split() == [token.text()]


def test_tokens_are_unique_and_do_not_show_their_secret() -> None:
    one, other = new_join_token(bytes(32)), new_join_token(bytes(32))
    assert one != other
    assert one.text()[-16:] not in f"{one} {one!r}"
    assert str(one.secret) not in f"{one} {one!r}"


@given(st.text() | st.text().map("fpj1_{}".format))
def test_invalid_token_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="no join token") as caught:
        parse_join_token(text)
    assert len(text) < 20 or text not in str(caught.value)


def test_truncated_token_is_refused() -> None:
    text = JoinToken(bytes(32), bytes(24)).text()
    with pytest.raises(ValueError, match="no join token"):
        parse_join_token(text[:-2])


def test_worker_uri() -> None:
    assert worker_id_of(worker_uri("rack-7")) == "rack-7"
    assert [worker_id_of(uri) for uri in ("fleetpulse://worker/", "fleetpulse://worker/a/b", "https://worker/a")] == [
        None,
        None,
        None,
    ]
