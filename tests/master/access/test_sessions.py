"""master.access.sessions"""

from pathlib import Path

from fleetpulse.master.access.book import TokenStore
from fleetpulse.master.access.roles import Role
from fleetpulse.master.access.sessions import MOST_OF_A_TOKEN, Sessions
from fleetpulse.master.access.token_file import TokenFile
from fleetpulse.master.access.tokens import make_token


def test_who_signs_in_without_end_ends_the_sessions_of_no_other_token(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    (reader, often), (admin, once) = (make_token(name, Role.READ, 0.0, None) for name in ("reader", "admin"))
    file.change(lambda _tokens: [reader, admin])
    sessions = Sessions(TokenStore(file))
    begun = [sessions.begin(secret) for secret in (once, *[often] * 2000)]
    kept = [one[1].name for one in begun if one is not None and sessions.identity(one[0]) is not None]
    assert kept == ["admin", *["reader"] * MOST_OF_A_TOKEN]
